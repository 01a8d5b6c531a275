//! Signing in while somebody else changes the very user.

use std::{
    fs,
    sync::{Arc, atomic::AtomicUsize},
};

use async_trait::async_trait;
use postern::{
    config,
    identity::{
        passwords::PasswordDoor,
        sign_in::{Attempt, SignIn, SignInError},
    },
    observe::metrics::Metrics,
    ports::{Credentials, HashError, Hasher, UserChange, Users},
};
use secrecy::SecretString;

use crate::harness::{Node, Place};

crate::for_every_store!(
    a_password_that_is_changed_while_it_is_verified_signs_nobody_in,
    a_user_who_is_disabled_meanwhile_is_not_signed_in,
    a_group_that_changes_meanwhile_is_no_reason_to_refuse,
);

/// Finds every password right, but only after something else has happened.
struct Meanwhile<F>(F);

#[async_trait]
impl<F: Fn() -> R + Send + Sync, R: Future<Output = ()> + Send> Hasher for Meanwhile<F> {
    async fn hash(&self, _password: SecretString) -> Result<String, HashError> {
        Err(HashError::Busy)
    }

    async fn verify(&self, _password: SecretString, _stored: Option<SecretString>) -> Result<bool, HashError> {
        (self.0)().await;
        Ok(true)
    }
}

async fn sign_in(place: &Place, node: &Node, hasher: impl Hasher + 'static) -> Result<(), SignInError> {
    let policies = place.folder.path().join("policies");
    fs::create_dir_all(&policies).unwrap();
    fs::write(policies.join("access.yaml"), "default: deny\n").unwrap();
    let file = place.folder.path().join("postern.yaml");
    let lines = format!(
        "portal: {{ url: 'https://auth.example.com' }}\nsession: {{ cookies: [{{ domain: example.com }}] }}\npolicies: {}\n",
        policies.display()
    );
    fs::write(&file, lines).unwrap();
    let site = config::load(&file).unwrap().settings.site;
    let stores = &node.stores;
    let passwords = PasswordDoor {
        users: stores.users.clone(),
        devices: stores.devices.clone(),
        credentials: stores.credentials.clone(),
        hasher: Arc::new(hasher),
        regulation: stores.regulation.clone(),
        verified: stores.verified_passwords.clone(),
        clock: stores.clock.clone(),
        audit: stores.audit.clone(),
        metrics: Arc::new(Metrics::new().unwrap()),
        under_way: AtomicUsize::new(0),
    };
    let sign_in = SignIn {
        passwords: Arc::new(passwords),
        sessions: stores.sessions.clone(),
        keys: stores.keys.clone(),
        clock: stores.clock.clone(),
        entropy: stores.entropy.clone(),
        audit: stores.audit.clone(),
        metrics: Arc::new(Metrics::new().unwrap()),
    };
    let attempt = Attempt {
        user: "ann".to_owned(),
        password: SecretString::from("as it was"),
        remember_me: false,
        domain: "example.com".to_owned(),
        user_agent: String::new(),
        address: None,
        request_id: "1".to_owned(),
        devices: Vec::new(),
        replaced: Vec::new(),
    };
    sign_in.with_password(&site, attempt).await.map(drop)
}

async fn a_password_that_is_changed_while_it_is_verified_signs_nobody_in(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let credentials: Arc<dyn Credentials> = node.stores.credentials.clone();
    let changed = Meanwhile(move || {
        let credentials = credentials.clone();
        async move { credentials.set_password_hash("ann", SecretString::from("$5$another$hash")).await.unwrap() }
    });
    let result = sign_in(&place, &node, changed).await;
    assert!(matches!(result, Err(SignInError::Refused)), "{result:?}");
    assert!(node.stores.sessions.list(Some("ann")).await.unwrap().is_empty(), "nothing is left of it");
    node.stop().await;
}

async fn a_user_who_is_disabled_meanwhile_is_not_signed_in(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let users: Arc<dyn Users> = node.stores.users.clone();
    let disabled = Meanwhile(move || {
        let users = users.clone();
        async move {
            let change = UserChange { disabled: Some(true), ..UserChange::default() };
            users.update("ann", change).await.map(drop).unwrap();
        }
    });
    assert!(sign_in(&place, &node, disabled).await.is_err());
    assert!(node.stores.sessions.list(Some("ann")).await.unwrap().is_empty());
    node.stop().await;
}

async fn a_group_that_changes_meanwhile_is_no_reason_to_refuse(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let users: Arc<dyn Users> = node.stores.users.clone();
    let regrouped = Meanwhile(move || {
        let users = users.clone();
        async move {
            let change = UserChange { groups: Some(vec!["ops".to_owned()]), ..UserChange::default() };
            users.update("ann", change).await.map(drop).unwrap();
        }
    });
    sign_in(&place, &node, regrouped).await.unwrap();
    assert_eq!(node.stores.sessions.list(Some("ann")).await.unwrap().len(), 1);
    node.stop().await;
}
