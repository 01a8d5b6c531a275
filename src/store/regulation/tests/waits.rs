//! Who has to wait now, as `postern limit show` tells it.

use super::*;

#[tokio::test]
async fn what_waits_is_told_and_nothing_is_taken_by_looking() {
    let scene = Scene::new().await;
    let seconds = |waits: &Waits| {
        let seconds = |wait: &Duration| wait.as_secs();
        (waits.everywhere.as_ref().map(seconds), waits.elsewhere.iter().map(seconds).collect::<Vec<_>>())
    };
    let of_bob = async || seconds(&scene.regulation.waits(Whose::Account("Bob")).await.unwrap());
    let of_address = async || {
        let address = HERE.parse().unwrap();
        seconds(&scene.regulation.waits(Whose::Address(address)).await.unwrap())
    };
    assert_eq!((of_bob().await, of_address().await), ((None, vec![]), (None, vec![])));
    scene.pressed(by("bob", HERE), 4).await;
    assert_eq!(of_bob().await, (None, vec![]), "four may go wrong");
    scene.pressed(by("bob", HERE), 2).await;
    assert_eq!(
        (of_bob().await, of_address().await),
        ((None, vec![10]), (None, vec![])),
        "with this name at this address"
    );
    let device = TokenHash::of("bob's");
    let known = Try { known: Known::Device(&device), ..by("bob", HERE) };
    scene.pressed(known, 5).await;
    assert_eq!(of_bob().await, (None, vec![5, 10]));
    for number in 0..14 {
        scene.wrong(by("bob", &format!("198.51.100.{number}"))).await;
    }
    assert_eq!(of_bob().await.0, Some(5), "the name has had its twenty");
    scene.pass(60);
    assert_eq!(of_bob().await, (None, vec![]));
    for number in 0..50 {
        scene.wrong(by(&format!("user{number}"), HERE)).await;
    }
    assert_eq!(of_address().await.0, Some(5));
    let rows = scene.rows().await;
    assert_eq!((of_address().await.0, scene.rows().await), (Some(5), rows));
    scene.regulation.configure(None);
    assert_eq!(of_address().await, (None, vec![]), "nothing is regulated");
}
