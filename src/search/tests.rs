//! The index by itself; with rooms it is tested end to end.

use std::cell::Cell;

use hearth_storage::EntityKey;

use crate::document::{Document, EventKey, Text};
use crate::duty::{COMMIT_EVENTS, GATHERING, gathered};
use crate::index::{Fields, Slice, TextIndex, Wanted};

fn key(room: u8, short: u32) -> EventKey {
    EventKey {
        room: EntityKey::from_bytes([0, room, 0, 0, 0, 1]).expect("a key"),
        short,
    }
}

fn document(room: u8, short: u32, sender: &str, text: Text) -> Document {
    Document {
        key: key(room, short),
        edit: None,
        sender: sender.to_owned(),
        recent: u64::from(short),
        text,
    }
}

fn body(room: u8, short: u32, text: &str) -> Document {
    document(room, short, "@a:x", Text::Body(text.to_owned()))
}

fn wanted(text: &str) -> Wanted {
    Wanted {
        words: crate::words(text),
        fields: Fields::ALL,
        rooms: vec![key(1, 0).room, key(2, 0).room],
        senders: None,
        not_senders: Vec::new(),
    }
}

fn index_of(documents: &[Document]) -> TextIndex {
    let index = TextIndex::open(None).expect("an index");
    let mut writer = index.writer().expect("a writer");
    for document in documents {
        writer.replace(document).expect("put");
    }
    writer.commit("payload").expect("committed");
    index.reload().expect("reloaded");
    index
}

#[track_caller]
fn check(index: &TextIndex, wanted: &Wanted, newest_first: &[u32]) {
    let found = index
        .find(wanted, Slice::Recent { before: None }, 100)
        .expect("found");
    let shorts: Vec<u32> = found.iter().map(|one| one.key.short).collect();
    assert_eq!(shorts, newest_first, "{wanted:?}");
    assert_eq!(index.count(wanted).expect("counted"), newest_first.len());
    let ranked = index.find(wanted, Slice::Rank { skip: 0 }, 100).expect("found");
    assert_eq!(ranked.len(), newest_first.len());
    assert!(ranked.windows(2).all(|pair| pair[0].rank >= pair[1].rank));
}

#[test]
fn all_words_anywhere_in_the_rooms_by_the_senders() {
    let index = index_of(&[
        body(1, 1, "The quick brown fox"),
        body(1, 2, "the lazy dog, and the FOX"),
        body(2, 3, "fox fox fox"),
        body(3, 4, "fox"),
        document(1, 5, "@b:x", Text::Name("Fox hunters".to_owned())),
        document(1, 6, "@b:x", Text::Topic("All about the fox".to_owned())),
    ]);
    check(&index, &wanted("fox"), &[6, 5, 3, 2, 1]);
    check(&index, &wanted("fox the"), &[6, 2, 1]);
    check(&index, &wanted("fox cat"), &[]);
    let only = |change: &dyn Fn(&mut Wanted)| {
        let mut wanted = wanted("fox");
        change(&mut wanted);
        wanted
    };
    check(&index, &only(&|wanted| wanted.rooms = vec![key(2, 0).room]), &[3]);
    check(
        &index,
        &only(&|wanted| wanted.senders = Some(vec!["@b:x".to_owned()])),
        &[6, 5],
    );
    check(&index, &only(&|wanted| wanted.senders = Some(Vec::new())), &[]);
    check(
        &index,
        &only(&|wanted| wanted.not_senders = vec!["@b:x".to_owned()]),
        &[3, 2, 1],
    );
    let fields = Fields {
        name: true,
        ..Fields::NONE
    };
    check(&index, &only(&|wanted| wanted.fields = fields), &[5]);
    let ranked = index
        .find(&wanted("fox"), Slice::Rank { skip: 0 }, 1)
        .expect("found");
    assert_eq!(ranked[0].key, key(2, 3), "what says it most often comes first");
}

#[test]
fn slices_follow_each_other() {
    let mut documents: Vec<Document> = (1..=25).map(|short| body(1, short, "same words")).collect();
    for document in &mut documents {
        // Some are of the same moment.
        document.recent = u64::from(document.key.short / 4);
    }
    let index = index_of(&documents);
    let wanted = wanted("same");
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = index.find(&wanted, Slice::Recent { before }, 10).expect("found");
        let Some(last) = page.last() else { break };
        before = Some(last.moment);
        seen.extend(page.iter().map(|one| one.key.short));
    }
    assert_eq!(seen, (1..=25).rev().collect::<Vec<_>>());
    let mut ranked: Vec<u32> = Vec::new();
    for skip in [0, 10, 20] {
        let page = index.find(&wanted, Slice::Rank { skip }, 10).expect("found");
        ranked.extend(page.iter().map(|one| one.key.short));
    }
    ranked.sort_unstable();
    assert_eq!(ranked, (1..=25).collect::<Vec<_>>());
}

#[test]
fn a_document_is_replaced_and_removed() {
    let mut edited = body(1, 1, "after");
    edited.edit = Some(key(1, 9));
    let index = index_of(&[
        body(1, 1, "before"),
        edited,
        body(1, 2, "after all"),
        body(2, 3, "after"),
    ]);
    check(&index, &wanted("before"), &[]);
    check(&index, &wanted("after"), &[3, 2, 1]);
    assert_eq!(index.showing_edit(key(1, 9)).expect("found"), [key(1, 1)]);
    assert_eq!(index.showing_edit(key(1, 8)).expect("found"), []);
    let mut writer = index.writer().expect("a writer");
    writer.remove(key(1, 1));
    writer.remove_room(key(2, 3).room);
    writer.commit("later").expect("committed");
    index.reload().expect("reloaded");
    check(&index, &wanted("after"), &[2]);
    assert_eq!(index.payload().expect("read").as_deref(), Some("later"));
}

#[test]
fn an_index_on_disk_outlives_its_process_and_what_was_not_committed_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("search");
    {
        let index = TextIndex::open(Some(&path)).expect("an index");
        assert_eq!(index.payload().expect("read"), None);
        let mut writer = index.writer().expect("a writer");
        writer.replace(&body(1, 1, "kept")).expect("put");
        writer.commit("one").expect("committed");
        writer.replace(&body(1, 2, "kept")).expect("put");
    }
    let index = TextIndex::open(Some(&path)).expect("an index");
    assert_eq!(index.payload().expect("read").as_deref(), Some("one"));
    check(&index, &wanted("kept"), &[1]);
    let index = index.emptied(Some(&path)).expect("an empty index");
    assert_eq!(index.payload().expect("read"), None);
    check(&index, &wanted("kept"), &[]);
}

#[test]
fn a_damaged_index_is_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("meta.json"), "nonsense").expect("written");
    let index = TextIndex::open(Some(folder.path())).expect("an index");
    assert_eq!(index.payload().expect("read"), None);
    index.writer().expect("it can be written");
}

#[tokio::test(start_paused = true)]
async fn what_fills_a_commit_is_not_waited_for_longer() {
    let begun = tokio::time::Instant::now();
    gathered(|| 7).await;
    assert_eq!(begun.elapsed(), GATHERING);
    let published = Cell::new(7);
    gathered(|| published.replace(published.get() + COMMIT_EVENTS as u64 / 3)).await;
    assert_eq!(begun.elapsed(), GATHERING + GATHERING / 10);
}
