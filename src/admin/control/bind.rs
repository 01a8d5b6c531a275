//! Makes the socket's file: nobody but the server's own user may open it, and that of a server before is replaced in one step.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
};

use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that wait for a place.
const WAITING: i32 = 16;

/// It is made under a name of its own and moved to its place: so it takes that of a server which died, and that of one which still runs and is to be relieved,
/// and whoever opens the name meets one of the two. Nobody can connect before it is 0600, since until it listens the system refuses them.
///
/// # Errors
/// The folder is not there or cannot be written, the path is too long for a socket, or something stands there that is none.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(about) if !is_socket(&about) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else stands there"));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let made = Path::new(&name);
    // Of a process of the same number, long ago.
    match fs::symlink_metadata(made) {
        Ok(about) if is_socket(&about) => fs::remove_file(made)?,
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(made)?)?;
    let placed = fs::set_permissions(made, Permissions::from_mode(0o600))
        .and_then(|()| socket.listen(WAITING))
        .and_then(|()| fs::rename(made, path));
    if placed.is_err() {
        drop(fs::remove_file(made));
    }
    placed.map(|()| UnixListener::from(std::os::fd::OwnedFd::from(socket)))
}

/// Whether somebody listens there. Never waits: of a server that hangs the queue may be full, which would hold up a start for ever.
#[must_use]
pub fn is_living(path: &Path) -> bool {
    let connected = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    });
    connected.map_or_else(|error| error.kind() == io::ErrorKind::WouldBlock, |()| true)
}

fn is_socket(about: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    about.file_type().is_socket()
}
