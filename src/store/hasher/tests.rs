use std::sync::Condvar;

use super::*;

/// Made by libxcrypt (`$2`, `$5`, `$6`), by Python's hashlib (scrypt, pbkdf2) and, for argon2id, from Authelia's documentation.
const OF_PASSWORD: &[&str] = &[
    "$argon2id$v=19$m=65536,t=3,p=2$BpLnfgDsc2WD8F2q$o/vzA4myCqZZ36bUGsDY//8mKUYNZZaR0t4MFFSs+iM",
    "$2a$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm",
    "$2b$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm",
    "$2y$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm",
    "$scrypt$ln=10,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$ZEBCzLptWM7dhpNJDU2HbQ945ovKHmVEozHkePPbSqw",
    "$pbkdf2$1000$....AQIDBAX//v38CwwNDg$..ENpVDexMbN2eqkAkXLktcWrnE",
    "$pbkdf2-sha1$1000$....AQIDBAX//v38CwwNDg$..ENpVDexMbN2eqkAkXLktcWrnE",
    "$pbkdf2-sha256$1000$....AQIDBAX//v38CwwNDg$r4WuLHGNSTWmQk6UQfyuTLK.4b/Sk0IJznmSlVehcs0",
    "$pbkdf2-sha512$1000$....AQIDBAX//v38CwwNDg$U61BfBINXFwIPcnExujjs1ZaKJmjG9KlvBkOwQA8HaWUefmNJdAMxFamRk1c3ndc9UoySdmPo1tbeHdyVXl69w",
    "$5$rounds=1000$abcdefgh$GEazsRB0Tipk2UJZtYJM/eHHRMtwea4Vnto3YxMbrG0",
    "$5$abcdefgh$ZLdkj8mkc2XVSrPVjskDAgZPGjtj1VGVaa1aUkrMTU/",
    "$6$rounds=5000$abcdefgh$yVfUwsw5T.JApa8POvClA1pQ5peiq97DUNyXCZN5IrF.BMSkiaLQ5kvpuEm/VQ1Tvh/KV2TcaWh8qinoW5dhA1",
    "$6$saltsaltsaltsalt$bcXJ8qxwY5sQ4v8MTl.0B1jeZ0z0JlA9jjmbUoCJZ.1wYXiLTU.q2ILyrDJLm890lyfuF7sWAeli0yjOyFPkf0",
    "{CRYPT}$5$abcdefgh$ZLdkj8mkc2XVSrPVjskDAgZPGjtj1VGVaa1aUkrMTU/",
];

struct Counting;

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for (byte, value) in bytes.iter_mut().zip(1..) {
            *byte = value;
        }
    }
}

fn pool(threads: usize, queue: usize) -> HashPool {
    HashPool::with(threads, queue, Arc::new(Counting)).unwrap()
}

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

#[test]
fn every_format_of_the_contract_is_verified() {
    for text in OF_PASSWORD {
        let stored = StoredHash::parse(text).unwrap_or_else(|bad| panic!("{text}: {bad}"));
        assert!(stored.matches(b"password"), "{text}");
        assert!(!stored.matches(b"passwore"), "{text}");
        assert!(!stored.matches(b""), "{text}");
    }
}

#[test]
fn argon2i_and_argon2d_in_both_versions() {
    for (name, algorithm) in [("argon2i", Algorithm::Argon2i), ("argon2d", Algorithm::Argon2d)] {
        for (field, version) in [("v=19$", Version::V0x13), ("v=16$", Version::V0x10), ("", Version::V0x10)] {
            let mut digest = [0; 32];
            Argon2::new(algorithm, version, Params::new(64, 1, 1, Some(32)).unwrap())
                .hash_password_into(b"password", b"saltsalt", &mut digest)
                .unwrap();
            let text = format!(
                "${name}${field}m=64,t=1,p=1${}${}",
                STANDARD_NO_PAD.encode(b"saltsalt"),
                STANDARD_NO_PAD.encode(digest)
            );
            assert!(StoredHash::parse(&text).unwrap().matches(b"password"), "{text}");
        }
    }
}

#[test]
fn what_is_unknown_damaged_or_excessive_is_a_fault() {
    for (text, expected) in [
        ("", BadHash::Unknown),
        ("password", BadHash::Unknown),
        ("$plaintext$password", BadHash::Unknown),
        ("$1$salt$qJH7.N4xYta3aEG/dfqo/0", BadHash::Unknown),
        ("$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7", BadHash::Unknown),
        ("$2x$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm", BadHash::Unknown),
        ("$argon2id$v=19$m=65536,t=3,p=2$BpLnfgDsc2WD8F2q", BadHash::Damaged("argon2")),
        ("$argon2id$v=19$t=3,m=65536,p=2$BpLnfgDsc2WD8F2q$o/vzA4myCqZZ36bUGsDY", BadHash::Damaged("argon2")),
        ("$argon2id$v=19$m=65536,t=3,p=2$$", BadHash::Damaged("argon2")),
        ("$argon2id$v=19$m=4294967295,t=3,p=2$BpLnfgDsc2WD8F2q$o/vzA4myCqZZ36bUGsDY", BadHash::Excessive("argon2")),
        ("$argon2id$v=19$m=65536,t=4000000000,p=2$BpLnfgDsc2WD8F2q$o/vzA4myCqZZ36bUGsDY", BadHash::Excessive("argon2")),
        ("$2b$31$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm", BadHash::Excessive("bcrypt")),
        ("$2b$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySv", BadHash::Damaged("bcrypt")),
        ("$scrypt$ln=31,r=8,p=1$MDEy$ZEBCzLptWM7dhpNJDU2HbQ945ovKHmVEozHkePPbSqw", BadHash::Excessive("scrypt")),
        (
            "$scrypt$ln=10,r=4294967295,p=1$MDEy$ZEBCzLptWM7dhpNJDU2HbQ945ovKHmVEozHkePPbSqw",
            BadHash::Excessive("scrypt"),
        ),
        ("$scrypt$ln=0,r=0,p=0$MDEy$ZEBCzLptWM7dhpNJDU2HbQ945ovKHmVEozHkePPbSqw", BadHash::Damaged("scrypt")),
        ("$pbkdf2-sha512$4000000000$....$..ENpVDexMbN2eqkAkXLktcWrnE", BadHash::Excessive("pbkdf2")),
        ("$pbkdf2-sha512$0$....$..ENpVDexMbN2eqkAkXLktcWrnE", BadHash::Damaged("pbkdf2")),
        ("$pbkdf2-sha512$1000$++++$..ENpVDexMbN2eqkAkXLktcWrnE", BadHash::Damaged("pbkdf2")),
        ("$pbkdf2-sha512$1000$....$", BadHash::Damaged("pbkdf2")),
        (
            "$5$rounds=999999999$abcdefgh$GEazsRB0Tipk2UJZtYJM/eHHRMtwea4Vnto3YxMbrG0",
            BadHash::Excessive("sha256-crypt"),
        ),
        ("$6$abcdefgh$GEazsRB0Tipk2UJZtYJM/eHHRMtwea4Vnto3YxMbrG0", BadHash::Damaged("sha512-crypt")),
    ] {
        assert_eq!(StoredHash::parse(text).err(), Some(expected), "{text}");
    }
}

#[tokio::test]
async fn a_hash_of_ours_is_argon2id_and_verifies() {
    let pool = pool(1, 4);
    let hash = pool.hash(secret("correct horse")).await.unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$AQIDBAUGBwgJCgsMDQ4PEA$"), "{hash}");
    assert!(pool.verify(secret("correct horse"), Some(secret(&hash))).await.unwrap());
    assert!(!pool.verify(secret("correct horsE"), Some(secret(&hash))).await.unwrap());
}

#[tokio::test]
async fn threat_39_nobodys_password_is_never_right() {
    let pool = pool(1, 4);
    for password in ["", "nobody", "password"] {
        assert!(!pool.verify(secret(password), None).await.unwrap());
    }
}

#[tokio::test]
async fn an_endless_password_is_wrong_and_costs_no_more() {
    let pool = pool(1, 4);
    let long = "a".repeat(MOST_PASSWORD + 1);
    assert!(!pool.verify(secret(&long), Some(secret(OF_PASSWORD[1]))).await.unwrap());
    assert!(matches!(pool.hash(secret(&long)).await, Err(HashError::Failed(_))));
}

#[tokio::test]
async fn a_full_queue_is_busy_and_a_panic_ends_no_thread() {
    let pool = pool(1, 1);
    let panicked = pool.run::<()>(|| panic!("on purpose")).await;
    assert!(matches!(panicked, Err(HashError::Failed(_))));

    let gate = Arc::new((Mutex::new((false, false)), Condvar::new()));
    let held = gate.clone();
    let first = pool.run(move || {
        let mut state = held.0.lock().unwrap();
        state.0 = true;
        held.1.notify_all();
        while !state.1 {
            state = held.1.wait(state).unwrap();
        }
        Ok(())
    });
    let mut first = Box::pin(first);
    assert!(futures_util::poll!(&mut first).is_pending());
    {
        let mut state = gate.0.lock().unwrap();
        while !state.0 {
            state = gate.1.wait(state).unwrap();
        }
    }
    let mut second = Box::pin(pool.run(|| Ok(())));
    assert!(futures_util::poll!(&mut second).is_pending());
    assert!(matches!(pool.run(|| Ok(())).await, Err(HashError::Busy)));
    gate.0.lock().unwrap().1 = true;
    gate.1.notify_all();
    first.await.unwrap();
    second.await.unwrap();
}
