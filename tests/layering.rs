//! Holds every source file against the layering table of ARCHITECTURE.md: which folders of the crate a folder may import, and
//! which frameworks, runtimes, drivers and IO.
//!
//! The sources are parsed, not searched: `use` trees, every path in code, in types, in attributes and in the arguments
//! of macros count, whether they say `crate::`, `super::` or `postern::`. Tests beside the code are left out.
#![expect(clippy::panic, clippy::expect_used, reason = "a test that cannot read must fail")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Item, UseTree,
    visit::{self, Visit},
};

/// What a folder (or a single file beside them) may import.
struct Layer {
    name: &'static str,
    /// Of the crate; the folder itself is always allowed.
    of_the_crate: &'static [&'static str],
    /// Of the world, beside [`FREE`].
    of_the_world: &'static [&'static str],
}

const ALL: &[&str] = &["*"];

#[rustfmt::skip]
const LAYERS: &[Layer] = &[
    Layer {
        name: "core",
        of_the_crate: &[],
        of_the_world: &["cel", "jiff", "psl", "regex", "regex_automata", "regex_syntax", "serde_yaml", "ua_parser"],
    },
    // `Keys` hands out the keys as jsonwebtoken takes them.
    Layer { name: "ports", of_the_crate: &["core"], of_the_world: &["async_trait", "jsonwebtoken"] },
    Layer {
        name: "observe",
        of_the_crate: &["core"],
        of_the_world: &["opentelemetry", "prometheus", "tracing", "tracing_subscriber"],
    },
    // `config` names the sink of the access log, which `observe` opens.
    Layer {
        name: "config",
        of_the_crate: &["core", "observe"],
        // lettre: what a sender may be.
        of_the_world: &["jiff", "lettre", "psl", "schemars", "serde_yaml"],
    },
    Layer {
        name: "gate",
        of_the_crate: &["core", "ports", "observe"],
        of_the_world: &["async_trait", "jsonwebtoken", "tracing"],
    },
    Layer {
        name: "identity",
        of_the_crate: &["core", "ports", "observe"],
        of_the_world: &["askama", "async_trait", "jsonwebtoken", "tracing"],
    },
    Layer {
        name: "store",
        of_the_crate: &["core", "ports", "config", "observe"],
        of_the_world: &[
            "argon2", "async_trait", "bcrypt", "chacha20poly1305", "ed25519_dalek", "futures_util", "getrandom", "governor", "hashbrown",
            "http_body_util", "hyper", "hyper_rustls", "hyper_util", "jsonwebtoken", "lettre", "maxminddb", "moka", "p256", "pbkdf2", "rand", "redis", "ring",
            "rsa", "rustls", "scrypt", "serde_yaml", "sha1", "sha_crypt", "sqlx", "tempfile", "tokio", "tracing",
        ],
    },
    Layer {
        name: "edge",
        of_the_crate: &["core", "gate", "config", "observe", "portal"],
        of_the_world: &[
            "async_trait", "axum", "futures_util", "http_body_util", "memchr", "pingora", "rustls", "tokio",
            "tokio_rustls", "tower", "tower_http", "tracing",
        ],
    },
    Layer {
        name: "forward_auth",
        of_the_crate: &["core", "gate", "config", "observe", "portal"],
        of_the_world: &[
            "axum", "http_body_util", "hyper", "hyper_util", "rustls", "tokio", "tokio_rustls", "tower", "tower_http",
            "tracing",
        ],
    },
    Layer {
        name: "portal",
        of_the_crate: &["core", "identity", "config", "observe", "gate", "ports"],
        of_the_world: &["askama", "axum", "http_body_util", "jiff", "tower", "tower_http", "tracing"],
    },
    Layer {
        name: "admin",
        of_the_crate: &["core", "ports", "observe"],
        of_the_world: &["axum", "hyper", "hyper_util", "socket2", "tokio", "tower", "tracing"],
    },
    Layer {
        name: "app",
        of_the_crate: &[
            "admin", "config", "core", "edge", "forward_auth", "gate", "identity", "lifecycle", "observe", "portal",
            "ports", "store",
        ],
        of_the_world: ALL,
    },
    Layer {
        name: "lifecycle",
        of_the_crate: &[
            "admin", "app", "config", "core", "edge", "forward_auth", "gate", "identity", "observe", "portal", "ports",
            "store",
        ],
        of_the_world: ALL,
    },
    Layer {
        name: "cli",
        of_the_crate: &["app", "config", "core", "identity"],
        of_the_world: &["anyhow", "clap", "clap_complete", "jiff", "rpassword", "tempfile", "terminal_size", "tokio"],
    },
];

/// Plain data and pure functions: no runtime, no IO. Free everywhere.
#[rustfmt::skip]
const FREE: &[&str] = &[
    "arc_swap", "base64", "bytes", "form_urlencoded", "http", "ipnet", "percent_encoding", "rustls_pki_types", "secrecy",
    "serde", "serde_json", "sha2", "subtle", "thiserror", "url", "zeroize",
];

#[test]
fn every_folder_imports_only_what_the_table_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dependencies = dependencies(&root.join("Cargo.toml"));
    let mut faults = Vec::new();
    for file in sources(&root.join("src")) {
        let relative = file.strip_prefix(root.join("src")).expect("a file below src");
        let module = module_of(relative);
        // lib.rs names the modules, main.rs the command line.
        let Some(folder) = module.first().cloned() else { continue };
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == folder) else {
            faults.push(format!("src/{}: the layering table has no row for {folder:?}", relative.display()));
            continue;
        };
        let source = fs::read_to_string(&file).expect("a source file");
        for import in imports(&source, module, &dependencies) {
            if let Some(why) = refused(layer, &import) {
                faults.push(format!("src/{}:{}: {why}", relative.display(), import.line));
            }
        }
    }
    assert!(faults.is_empty(), "the layering table does not allow:\n{}", faults.join("\n"));
}

#[test]
fn the_table_names_only_folders_that_exist() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for layer in LAYERS {
        let exists = source.join(layer.name).is_dir() || source.join(format!("{}.rs", layer.name)).is_file();
        assert!(exists, "src/{} is in the table but not in the tree", layer.name);
    }
}

#[test]
fn an_import_is_found_in_whatever_form() {
    let dependencies: BTreeSet<String> = ["axum", "serde", "tokio", "tracing"].map(str::to_owned).into();
    let cases: &[(&str, &[&str])] = &[
        ("use crate::gate::Gate;", &["crate::gate"]),
        ("use crate::{gate::{Gate, in_flight}, store as s};", &["crate::gate", "crate::store"]),
        ("use crate::*;", &["crate::*"]),
        ("use postern::store::X;", &["crate::store"]),
        ("use super::super::gate::Gate;", &["crate::gate"]),
        ("use super::sibling::Gate;", &[]),
        ("mod inner { use super::super::super::gate::Gate; }", &["crate::gate"]),
        ("fn f() { crate::store::open(); }", &["crate::store"]),
        ("fn f() -> Vec<crate::store::Row> { vec![] }", &["crate::store"]),
        ("fn f() { assert_eq!(crate::store::open(), 1); }", &["crate::store"]),
        ("use axum::{Router, routing::get};", &["axum"]),
        ("use ::tokio;", &["tokio"]),
        ("extern crate tokio;", &["tokio"]),
        ("fn f() { tokio::spawn(async {}); }", &["tokio"]),
        ("fn f() { tracing::info!(name = tokio::task::id()); }", &["tokio", "tracing"]),
        ("#[tokio::main] async fn f() {}", &["tokio"]),
        ("#[derive(serde::Serialize)] struct S;", &["serde"]),
        ("#[cfg(test)] mod tests { use crate::store::X; use tokio::spawn; }", &[]),
        ("#[cfg(test)] use tokio::spawn;", &[]),
        ("// use crate::store::X;\n/* tokio::spawn */ const S: &str = \"crate::store::X\";", &[]),
    ];
    for (source, expected) in cases {
        let module = vec!["core".to_owned(), "policy".to_owned()];
        let found: BTreeSet<String> =
            imports(source, module, &dependencies).iter().map(|import| import.label()).collect();
        let expected: BTreeSet<String> = expected.iter().map(|&label| label.to_owned()).collect();
        assert_eq!(found, expected, "in {source}");
    }
}

#[test]
fn an_import_beyond_the_table_is_refused() {
    let core = &LAYERS[0];
    let of_the_crate = |name: &str| Import { of_the_crate: true, name: name.to_owned(), line: 1 };
    let of_the_world = |name: &str| Import { of_the_crate: false, name: name.to_owned(), line: 1 };
    for import in [of_the_crate("store"), of_the_crate("*"), of_the_world("tokio"), of_the_world("tracing")] {
        assert!(refused(core, &import).is_some(), "{}", import.label());
    }
    for import in [of_the_crate("core"), of_the_world("http"), of_the_world("regex")] {
        assert!(refused(core, &import).is_none(), "{}", import.label());
    }
}

struct Import {
    of_the_crate: bool,
    name: String,
    line: usize,
}

impl Import {
    fn label(&self) -> String {
        if self.of_the_crate { format!("crate::{}", self.name) } else { self.name.clone() }
    }
}

fn refused(layer: &Layer, import: &Import) -> Option<String> {
    let name = import.name.as_str();
    let allowed = if import.of_the_crate {
        name == layer.name || layer.of_the_crate.contains(&name)
    } else {
        FREE.contains(&name) || layer.of_the_world == ALL || layer.of_the_world.contains(&name)
    };
    (!allowed).then(|| format!("`{}` may not import `{}`", layer.name, import.label()))
}

/// Every import of another module of the crate and of a dependency, outside tests.
fn imports(source: &str, module: Vec<String>, dependencies: &BTreeSet<String>) -> Vec<Import> {
    let file = syn::parse_file(source).unwrap_or_else(|fault| panic!("{}: {fault}", module.join("::")));
    let mut finder = Finder { module, dependencies, found: Vec::new() };
    finder.visit_file(&file);
    finder.found
}

struct Finder<'d> {
    /// Where the visitor stands, inline modules included.
    module: Vec<String>,
    dependencies: &'d BTreeSet<String>,
    found: Vec<Import>,
}

impl Finder<'_> {
    /// A path as written, by its segments. `whole`: in a `use`, where a single segment names a crate.
    fn note(&mut self, segments: &[String], line: usize, whole: bool) {
        let Some(first) = segments.first().map(String::as_str) else { return };
        let of_the_crate = match first {
            "crate" | "postern" => segments.get(1),
            "super" => {
                let ups = segments.iter().take_while(|segment| *segment == "super").count();
                if ups >= self.module.len() { segments.get(ups) } else { None }
            }
            _ => None,
        };
        if let Some(name) = of_the_crate {
            self.found.push(Import { of_the_crate: true, name: name.clone(), line });
        } else if (whole || segments.len() > 1) && self.dependencies.contains(first) {
            self.found.push(Import { of_the_crate: false, name: first.to_owned(), line });
        }
    }

    fn note_tree(&mut self, tree: &UseTree, mut before: Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.note_tree(&path.tree, before);
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.note_tree(tree, before.clone())),
            UseTree::Name(name) => {
                before.push(name.ident.to_string());
                self.note(&before, name.ident.span().start().line, true);
            }
            UseTree::Rename(rename) => {
                before.push(rename.ident.to_string());
                self.note(&before, rename.ident.span().start().line, true);
            }
            UseTree::Glob(glob) => {
                before.push("*".to_owned());
                self.note(&before, glob.star_token.spans[0].start().line, true);
            }
        }
    }

    /// Paths among the arguments of a macro or an attribute, which are not parsed.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.note(&std::mem::take(&mut path), line, false);
                    }
                    line = ident.span().start().line;
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.note(&std::mem::take(&mut path), line, false);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.note_tokens(group.stream());
                    }
                }
            }
        }
        self.note(&path, line, false);
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if attributes(item).iter().any(is_for_tests) {
            return;
        }
        match item {
            Item::Use(item) => self.note_tree(&item.tree, Vec::new()),
            Item::ExternCrate(item) => self.note(&[item.ident.to_string()], item.ident.span().start().line, true),
            Item::Mod(module) if module.content.is_some() => {
                self.module.push(module.ident.to_string());
                visit::visit_item(self, item);
                self.module.pop();
            }
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !item.attrs.iter().any(is_for_tests) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let line = path.segments.first().map_or(0, |segment| segment.ident.span().start().line);
        self.note(&segments, line, false);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.note_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.note_tokens(list.tokens.clone());
        visit::visit_meta_list(self, list);
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
}

/// `src/core/policy/mod.rs` is the module `core::policy`.
fn module_of(relative: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        relative.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    module
}

/// Every source file that is not a test beside the code.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("a folder's entry").path();
        if path.is_dir() {
            if !path.ends_with("tests") && !path.ends_with("fakes") {
                files.extend(sources(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Names of `[dependencies]`, as code writes them.
fn dependencies(manifest: &Path) -> BTreeSet<String> {
    let manifest = fs::read_to_string(manifest).expect("Cargo.toml");
    let section = manifest.split("\n[dependencies]\n").nth(1).expect("a section [dependencies]");
    section
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().replace('-', "_"))
        .filter(|name| !name.is_empty())
        .collect()
}
