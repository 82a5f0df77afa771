//! What every store must do. Each implementation's tests call [`all`] with a way to make an
//! empty store.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{Append, Limits, Part, Store, StoreError};
use crate::address::Address;

/// What the stores under test keep.
pub(crate) const LIMITS: Limits = Limits {
    history: 10,
    key_ms: 3_600_000,
};

/// Runs every rule against a new, empty store.
pub(crate) async fn all<S: Store, F: Future<Output = S>>(empty: impl Fn() -> F) {
    offsets_count_up_from_1_in_each_channel(&empty().await).await;
    a_page_is_a_part_of_the_history(&empty().await).await;
    only_the_newest_are_kept(&empty().await).await;
    a_key_stores_once(&empty().await).await;
    a_key_is_remembered_after_its_message(&empty().await).await;
    a_key_belongs_to_its_origin_and_address(&empty().await).await;
    a_message_to_a_user_leaves_only_its_key(&empty().await).await;
    what_was_said_is_kept_as_it_was(&empty().await).await;
    appends_at_once_get_different_offsets(&empty().await).await;
    recent_messages_come_from_all_channels(&empty().await).await;
}

/// An append by ann's phone.
pub(crate) fn say(to: &str, text: &str, key: Option<&str>) -> Append {
    let ann = "ann".parse().unwrap();
    Append {
        to: to.parse().unwrap(),
        from: Some("ann".parse().unwrap()),
        device: Some((ann, "phone".parse().unwrap())),
        event: "message".into(),
        data: json(&format!("{text:?}")),
        key: key.map(Arc::from),
    }
}

/// Offsets and contents of a part of a channel.
pub(crate) async fn texts(
    store: &dyn Store,
    channel: &str,
    part: Part,
    limit: usize,
) -> Vec<(u64, String)> {
    let page = store
        .page(&channel.parse().unwrap(), part, limit)
        .await
        .unwrap();
    page.messages
        .iter()
        .map(|message| {
            (
                message.offset.unwrap(),
                serde_json::from_str(message.data.get()).unwrap(),
            )
        })
        .collect()
}

fn json(text: &str) -> Arc<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap().into()
}

async fn offsets_count_up_from_1_in_each_channel(store: &dyn Store) {
    for offset in 1..=3 {
        let appended = store.append(say("channel:a", "x", None)).await.unwrap();
        assert_eq!(appended.offset, Some(offset));
        assert!(!appended.repeated);
        assert_eq!(appended.message.unwrap().id, appended.id);
    }
    let other = store.append(say("channel:b", "x", None)).await.unwrap();
    assert_eq!(other.offset, Some(1));
}

async fn a_page_is_a_part_of_the_history(store: &dyn Store) {
    let page = store
        .page(&"a".parse().unwrap(), Part::Newest, 10)
        .await
        .unwrap();
    assert_eq!((page.messages.len(), page.first, page.last), (0, 1, 0));
    for offset in 1..=6 {
        store
            .append(say("channel:a", &format!("text {offset}"), None))
            .await
            .unwrap();
    }
    let offsets = async |part, limit| -> Vec<u64> {
        texts(store, "a", part, limit)
            .await
            .into_iter()
            .map(|(offset, _)| offset)
            .collect()
    };
    assert_eq!(offsets(Part::Newest, 2).await, [5, 6]);
    assert_eq!(offsets(Part::Before(5), 2).await, [3, 4]);
    assert!(offsets(Part::Before(1), 2).await.is_empty());
    assert_eq!(offsets(Part::Since(2), 3).await, [3, 4, 5]);
    assert!(offsets(Part::Since(6), 3).await.is_empty());
    assert!(offsets(Part::Since(u64::MAX), 3).await.is_empty());
    assert_eq!(
        texts(store, "a", Part::Since(5), 9).await,
        [(6, String::from("text 6"))]
    );
    let page = store
        .page(&"a".parse().unwrap(), Part::Since(2), 1)
        .await
        .unwrap();
    assert_eq!((page.first, page.last), (1, 6));
}

async fn only_the_newest_are_kept(store: &dyn Store) {
    for _ in 0..LIMITS.history + 5 {
        store.append(say("channel:a", "x", None)).await.unwrap();
    }
    let page = store
        .page(&"a".parse().unwrap(), Part::Since(0), 100)
        .await
        .unwrap();
    assert_eq!((page.first, page.last), (6, LIMITS.history + 5));
    assert_eq!(page.messages.len() as u64, LIMITS.history);
    assert_eq!(page.messages[0].offset, Some(6));
}

async fn a_key_stores_once(store: &dyn Store) {
    let first = store
        .append(say("channel:a", "one", Some("k")))
        .await
        .unwrap();
    let second = store
        .append(say("channel:a", "one", Some("k")))
        .await
        .unwrap();
    assert!(!first.repeated && second.repeated);
    assert_eq!(
        (first.id, first.offset, first.time),
        (second.id, second.offset, second.time)
    );
    assert_eq!(second.message.unwrap().id, first.id);
    assert_eq!(
        texts(store, "a", Part::Newest, 9).await,
        [(1, String::from("one"))]
    );
    // Also when both arrive at once.
    let (one, two) = tokio::join!(
        store.append(say("channel:a", "two", Some("l"))),
        store.append(say("channel:a", "two", Some("l")))
    );
    assert_eq!(one.unwrap().offset, Some(2));
    assert_eq!(two.unwrap().offset, Some(2));
}

async fn a_key_is_remembered_after_its_message(store: &dyn Store) {
    store
        .append(say("channel:a", "x", Some("k")))
        .await
        .unwrap();
    for _ in 0..LIMITS.history {
        store.append(say("channel:a", "y", None)).await.unwrap();
    }
    let late = store
        .append(say("channel:a", "x", Some("k")))
        .await
        .unwrap();
    assert!(late.repeated && late.message.is_none());
    assert_eq!(late.offset, Some(1));
}

async fn a_key_belongs_to_its_origin_and_address(store: &dyn Store) {
    store
        .append(say("channel:a", "x", Some("k")))
        .await
        .unwrap();
    let other_device = Append {
        device: Some(("ann".parse().unwrap(), "tablet".parse().unwrap())),
        ..say("channel:a", "x", Some("k"))
    };
    assert!(!store.append(other_device).await.unwrap().repeated);
    let application = Append {
        device: None,
        from: None,
        ..say("channel:a", "x", Some("k"))
    };
    assert!(!store.append(application).await.unwrap().repeated);
    let elsewhere = store
        .append(say("channel:b", "x", Some("k")))
        .await
        .unwrap_err();
    assert_eq!(
        elsewhere,
        StoreError::KeyUsed {
            to: String::from("channel:a")
        }
    );
    // A refused message does not stop those that are written with it.
    let (refused, stored) = tokio::join!(
        store.append(say("channel:b", "x", Some("k"))),
        store.append(say("channel:b", "y", Some("m")))
    );
    assert!(refused.is_err());
    assert_eq!(stored.unwrap().offset, Some(1));
}

async fn a_message_to_a_user_leaves_only_its_key(store: &dyn Store) {
    let first = store.append(say("user:bob", "x", Some("k"))).await.unwrap();
    let second = store.append(say("user:bob", "x", Some("k"))).await.unwrap();
    assert_eq!((first.offset, first.repeated), (None, false));
    assert_eq!((second.id, second.repeated), (first.id, true));
    assert!(first.message.is_some() && second.message.is_none());
}

async fn what_was_said_is_kept_as_it_was(store: &dyn Store) {
    let data = r#"{"big":12345678901234567890.123456789,"order":{"z":1,"a":[null,"\u0000ü"]}}"#;
    let append = Append {
        to: Address::Channel("Küche".parse().unwrap()),
        from: None,
        device: None,
        event: "order/ready".into(),
        data: json(data),
        key: Some("k".into()),
    };
    let appended = store.append(append).await.unwrap();
    let page = store
        .page(&"Küche".parse().unwrap(), Part::Newest, 1)
        .await
        .unwrap();
    let kept = &page.messages[0];
    assert_eq!(kept.data.get(), data);
    assert_eq!(
        (&*kept.event, &kept.from, kept.key.as_deref()),
        ("order/ready", &None, Some("k"))
    );
    assert_eq!((kept.id, kept.time), (appended.id, appended.time));
}

async fn appends_at_once_get_different_offsets(store: &dyn Store) {
    let appends = (0..100).map(|_| store.append(say("channel:a", "x", None)));
    let mut offsets: Vec<u64> = futures_util::future::join_all(appends)
        .await
        .into_iter()
        .map(|appended| appended.unwrap().offset.unwrap())
        .collect();
    offsets.sort_unstable();
    assert!(offsets.into_iter().eq(1..=100));
}

async fn recent_messages_come_from_all_channels(store: &dyn Store) {
    let before = store
        .append(say("channel:a", "1", None))
        .await
        .unwrap()
        .time;
    store.append(say("channel:a", "2", None)).await.unwrap();
    store.append(say("channel:b", "3", None)).await.unwrap();
    let recent = store.recent(before, 100).await.unwrap();
    let places: Vec<_> = recent
        .iter()
        .map(|(channel, message)| (channel.as_str(), message.offset))
        .collect();
    assert_eq!(places, [("a", Some(1)), ("a", Some(2)), ("b", Some(1))]);
    assert!(
        store
            .recent(before + 3_600_000, 100)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(store.recent(before, 1).await.unwrap().len(), 1);
}
