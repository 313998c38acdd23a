use super::*;
use crate::fake::FakeImages;
use crate::suite;

#[tokio::test]
async fn the_suite_holds() {
    let store = ImageStore::open(Database::in_memory().unwrap()).await.unwrap();
    suite::names_lead_to_one_image(&store).await;
    suite::names_lead_to_one_image(&FakeImages::new()).await;
    suite::packed_forms_are_notes(&store).await;
    suite::packed_forms_are_notes(&FakeImages::new()).await;
}

#[tokio::test]
async fn images_outlive_the_store() {
    let database = Database::in_memory().unwrap();
    let store = ImageStore::open(database.clone()).await.unwrap();
    suite::names_lead_to_one_image(&store).await;
    let before = store.list().await.unwrap();
    drop(store);
    let store = ImageStore::open(database).await.unwrap();
    assert_eq!(store.list().await.unwrap(), before);
    assert!(!before.is_empty());
}
