//! Whatever an issuer answers where its key set should be: it is refused, or what is taken of it are bounded keys that verify signatures by
//! public keys, each by algorithms of its own type (THREATS 45).

use postern::core::issuer::{
    JwtAlgorithm,
    jwks::{KeyMaterial, KeySet, LONGEST_KID, MOST_KEYS},
};

pub(crate) fn run(text: &[u8]) {
    let Ok(set) = KeySet::parse(text) else { return };
    assert!(set.keys.len() <= MOST_KEYS);
    for key in &set.keys {
        assert!(key.kid.as_ref().is_none_or(|kid| kid.len() <= LONGEST_KID));
        assert!(!key.algorithms.is_empty());
        let fitting: &[JwtAlgorithm] = match &key.material {
            KeyMaterial::Rsa { modulus, exponent } => {
                assert!((256..=512).contains(&modulus.len()) && modulus.first().is_some_and(|first| *first != 0));
                assert!(exponent.len() <= 4 && exponent.last().is_some_and(|last| last % 2 == 1) && exponent != &[1]);
                &JwtAlgorithm::ASYMMETRIC[..6]
            }
            KeyMaterial::EllipticCurve { point } if point.len() == 65 => &[JwtAlgorithm::ES256],
            KeyMaterial::EllipticCurve { point } => {
                assert_eq!(point.len(), 97);
                &[JwtAlgorithm::ES384]
            }
            KeyMaterial::Ed25519(_) => &[JwtAlgorithm::EdDSA],
            KeyMaterial::Secret(_) => panic!("a secret out of a key set"),
        };
        assert!(key.algorithms.iter().all(|algorithm| fitting.contains(algorithm)), "{key:?}");
        for algorithm in &key.algorithms {
            assert!(set.candidates(key.kid.as_deref(), *algorithm).any(|found| found == key));
            assert!(set.candidates(None, *algorithm).any(|found| found == key));
        }
    }
    assert_eq!(set.candidates(None, JwtAlgorithm::HS256).count(), 0);
    // The same answer is the same set, so that tokens verified by it stay verified.
    assert_eq!(KeySet::parse(text).as_ref(), Ok(&set));
}
