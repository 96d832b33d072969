//! The index itself: documents in, proposals out. The one module that names tantivy's types, beside the words.

use std::fs;
use std::ops::Bound;
use std::path::Path;

use hearth_storage::EntityKey;
use serde::{Deserialize, Serialize};
use tantivy::collector::{Count, TopDocs};
use tantivy::columnar::Column;
use tantivy::directory::{MmapDirectory, RamDirectory};
use tantivy::indexer::IndexWriterOptions;
use tantivy::query::{BooleanQuery, ConstScoreQuery, Occur, Query, RangeQuery, TermQuery, TermSetQuery};
use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions, Value,
};
use tantivy::{DocAddress, DocId, Index, IndexReader, IndexWriter, ReloadPolicy, Score, SegmentReader};
use tantivy::{TantivyDocument, Term};

use crate::Error;
use crate::document::{Document, EventKey, Text};
use crate::words::{ANALYZER, analyzer};

/// Memory of the writer, in bytes: tantivy takes no less, and indexing is seldom what a server waits for.
const WRITER_BYTES: usize = 15_000_000;
/// The most documents of one edit that are looked for: an edit is of one event.
const EDITED_MAX: usize = 10;
/// Blocks of stored keys that are kept decompressed.
const STORE_CACHE_BLOCKS: usize = 16;

/// The names of the fields by which results are ordered.
const RECENT: &str = "recent";
const TIE: &str = "tie";

/// By which keys is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// `content.body`
    pub body: bool,
    /// `content.name`
    pub name: bool,
    /// `content.topic`
    pub topic: bool,
}

impl Fields {
    /// All keys.
    pub const ALL: Fields = Fields {
        body: true,
        name: true,
        topic: true,
    };
    /// No key.
    pub const NONE: Fields = Fields {
        body: false,
        name: false,
        topic: false,
    };
}

/// What is looked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// All of these words.
    pub(crate) words: Vec<String>,
    pub(crate) fields: Fields,
    /// In one of these rooms.
    pub(crate) rooms: Vec<EntityKey>,
    /// Of one of these senders.
    pub(crate) senders: Option<Vec<String>>,
    /// Of none of these.
    pub(crate) not_senders: Vec<String>,
}

/// Which part of what is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slice {
    /// The most relevant, after so many.
    Rank {
        /// How many are passed over.
        skip: usize,
    },
    /// The newest, before this.
    Recent {
        /// The place of the last one before.
        before: Option<Moment>,
    },
}

/// A place in the order of time. No two events have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// The time, and within a millisecond the place in the room.
    pub(crate) recent: u64,
    /// What tells apart events of several rooms.
    pub(crate) tie: u64,
}

/// An event that may be an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) key: EventKey,
    pub(crate) rank: f32,
    pub(crate) moment: Moment,
}

#[derive(Clone, Copy)]
struct Columns {
    key: Field,
    room: Field,
    edit: Field,
    sender: Field,
    recent: Field,
    tie: Field,
    body: Field,
    name: Field,
    topic: Field,
}

/// The index on disk or in memory.
pub(crate) struct TextIndex {
    index: Index,
    reader: IndexReader,
    columns: Columns,
}

/// Whoever writes to the index: one at a time. What is not committed when it is dropped never was.
pub(crate) struct Writer {
    writer: IndexWriter,
    columns: Columns,
}

impl TextIndex {
    /// Opens the index in a folder, or makes one. What cannot be opened is made anew: all of it can be had again.
    pub(crate) fn open(folder: Option<&Path>) -> Result<Self, Error> {
        let Some(folder) = folder else {
            return Self::in_memory();
        };
        fs::create_dir_all(folder)?;
        match Self::in_folder(folder) {
            Ok(index) => Ok(index),
            Err(error) => {
                tracing::warn!(%error, "the search index cannot be used and is built anew");
                Self::anew(folder)
            }
        }
    }

    /// An empty index in its place.
    pub(crate) fn emptied(self, folder: Option<&Path>) -> Result<Self, Error> {
        drop(self);
        match folder {
            Some(folder) => Self::anew(folder),
            None => Self::in_memory(),
        }
    }

    fn anew(folder: &Path) -> Result<Self, Error> {
        fs::remove_dir_all(folder)?;
        fs::create_dir_all(folder)?;
        Self::in_folder(folder)
    }

    fn in_folder(folder: &Path) -> Result<Self, Error> {
        let directory = MmapDirectory::open(folder).map_err(tantivy::TantivyError::from)?;
        let (schema, columns) = schema();
        Self::of(Index::open_or_create(directory, schema)?, columns)
    }

    fn in_memory() -> Result<Self, Error> {
        let (schema, columns) = schema();
        Self::of(Index::open_or_create(RamDirectory::create(), schema)?, columns)
    }

    fn of(index: Index, columns: Columns) -> Result<Self, Error> {
        index.tokenizers().register(ANALYZER, analyzer());
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(STORE_CACHE_BLOCKS)
            .try_into()?;
        Ok(Self {
            index,
            reader,
            columns,
        })
    }

    /// What was stored with the last commit.
    pub(crate) fn payload(&self) -> Result<Option<String>, Error> {
        Ok(self.index.load_metas()?.payload)
    }

    /// The writer. There is one at a time.
    pub(crate) fn writer(&self) -> Result<Writer, Error> {
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .memory_budget_per_thread(WRITER_BYTES)
            .num_merge_threads(1)
            .build();
        Ok(Writer {
            writer: self.index.writer_with_options(options)?,
            columns: self.columns,
        })
    }

    /// Shows searches what was committed.
    pub(crate) fn reload(&self) -> Result<(), Error> {
        Ok(self.reader.reload()?)
    }

    /// The documents that show the text of an edit.
    pub(crate) fn showing_edit(&self, edit: EventKey) -> Result<Vec<EventKey>, Error> {
        let term = Term::from_field_bytes(self.columns.edit, &edit.to_bytes());
        let query = TermQuery::new(term, IndexRecordOption::Basic);
        let searcher = self.reader.searcher();
        let found = searcher.search(&query, &TopDocs::with_limit(EDITED_MAX).order_by_score())?;
        let keys = found.into_iter().map(|(_, address)| self.key_at(address));
        Ok(keys
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    /// How many documents fit.
    pub(crate) fn count(&self, wanted: &Wanted) -> Result<usize, Error> {
        let query = self.query(wanted, None);
        Ok(self.reader.searcher().search(&query, &Count)?)
    }

    /// Some of the documents that fit, in their order.
    pub(crate) fn find(&self, wanted: &Wanted, slice: Slice, limit: usize) -> Result<Vec<Candidate>, Error> {
        let searcher = self.reader.searcher();
        let moment_of = |segment: &SegmentReader| {
            let column = |name| segment.fast_fields().u64(name).ok();
            let (recent, tie) = (column(RECENT), column(TIE));
            move |doc: DocId| {
                let value = |column: &Option<Column>| column.as_ref().and_then(|column| column.first(doc));
                (value(&recent).unwrap_or(0), value(&tie).unwrap_or(0))
            }
        };
        let found: Vec<(f32, (u64, u64), DocAddress)> = match slice {
            Slice::Rank { skip } => {
                let top = TopDocs::with_limit(limit).and_offset(skip);
                let collector = top.tweak_score(move |segment: &SegmentReader| {
                    let moment = moment_of(segment);
                    move |doc: DocId, score: Score| (score, moment(doc))
                });
                let found = searcher.search(&self.query(wanted, None), &collector)?;
                found
                    .into_iter()
                    .map(|((rank, moment), at)| (rank, moment, at))
                    .collect()
            }
            Slice::Recent { before } => {
                let collector = TopDocs::with_limit(limit).tweak_score(move |segment: &SegmentReader| {
                    let moment = moment_of(segment);
                    move |doc: DocId, score: Score| (moment(doc), score)
                });
                let found = searcher.search(&self.query(wanted, before), &collector)?;
                found
                    .into_iter()
                    .map(|((moment, rank), at)| (rank, moment, at))
                    .collect()
            }
        };
        let mut out = Vec::with_capacity(found.len());
        for (rank, (recent, tie), address) in found {
            if let Some(key) = self.key_at(address)? {
                let moment = Moment { recent, tie };
                out.push(Candidate { key, rank, moment });
            }
        }
        Ok(out)
    }

    fn key_at(&self, address: DocAddress) -> Result<Option<EventKey>, Error> {
        let document: TantivyDocument = self.reader.searcher().doc(address)?;
        let bytes = document.get_first(self.columns.key);
        Ok(bytes.and_then(|bytes| EventKey::from_bytes(bytes.as_bytes()?)))
    }

    fn query(&self, wanted: &Wanted, before: Option<Moment>) -> BooleanQuery {
        let columns = self.columns;
        let fields: Vec<Field> = [
            (wanted.fields.body, columns.body),
            (wanted.fields.name, columns.name),
            (wanted.fields.topic, columns.topic),
        ]
        .into_iter()
        .filter_map(|(is_wanted, field)| is_wanted.then_some(field))
        .collect();
        let mut parts: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        for word in &wanted.words {
            let in_field = |field: &Field| -> Box<dyn Query> {
                let term = Term::from_field_text(*field, word);
                Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs))
            };
            let anywhere = BooleanQuery::union(fields.iter().map(in_field).collect());
            parts.push((Occur::Must, Box::new(anywhere)));
        }
        let rooms = wanted.rooms.iter().map(|room| room_term(columns.room, *room));
        parts.push((Occur::Must, unranked(Box::new(TermSetQuery::new(rooms)))));
        if let Some(senders) = &wanted.senders {
            parts.push((Occur::Must, any_of(columns.sender, senders)));
        }
        if !wanted.not_senders.is_empty() {
            parts.push((Occur::MustNot, any_of(columns.sender, &wanted.not_senders)));
        }
        if let Some(before) = before {
            let below = |field, at| -> Box<dyn Query> {
                let end = Bound::Excluded(Term::from_field_u64(field, at));
                Box::new(RangeQuery::new(Bound::Unbounded, end))
            };
            let at = || Bound::Included(Term::from_field_u64(columns.recent, before.recent));
            let at_once: Vec<Box<dyn Query>> = vec![
                Box::new(RangeQuery::new(at(), at())),
                below(columns.tie, before.tie),
            ];
            let earlier: Vec<Box<dyn Query>> = vec![
                below(columns.recent, before.recent),
                Box::new(BooleanQuery::intersection(at_once)),
            ];
            parts.push((Occur::Must, unranked(Box::new(BooleanQuery::union(earlier)))));
        }
        BooleanQuery::new(parts)
    }
}

/// A condition that says nothing of relevance.
fn unranked(query: Box<dyn Query>) -> Box<dyn Query> {
    Box::new(ConstScoreQuery::new(query, 0.0))
}

fn room_term(field: Field, room: EntityKey) -> Term {
    Term::from_field_bytes(field, &room.to_bytes())
}

fn any_of(field: Field, texts: &[String]) -> Box<dyn Query> {
    let terms = texts.iter().map(|text| Term::from_field_text(field, text));
    unranked(Box::new(TermSetQuery::new(terms)))
}

impl Writer {
    /// Puts a document in the place of what there was of its event.
    pub(crate) fn replace(&self, document: &Document) -> Result<(), Error> {
        self.remove(document.key);
        self.add(document)
    }

    /// Adds the document of an event that has none. To take out what is not there costs more than to put something in.
    pub(crate) fn add(&self, document: &Document) -> Result<(), Error> {
        let columns = self.columns;
        let mut entry = TantivyDocument::default();
        entry.add_bytes(columns.key, &document.key.to_bytes());
        entry.add_bytes(columns.room, &document.key.room.to_bytes());
        if let Some(edit) = document.edit {
            entry.add_bytes(columns.edit, &edit.to_bytes());
        }
        entry.add_text(columns.sender, &document.sender);
        entry.add_u64(columns.recent, document.recent);
        entry.add_u64(columns.tie, document.key.tie());
        match &document.text {
            Text::Body(text) => entry.add_text(columns.body, text),
            Text::Name(text) => entry.add_text(columns.name, text),
            Text::Topic(text) => entry.add_text(columns.topic, text),
        }
        self.writer.add_document(entry)?;
        Ok(())
    }

    /// Takes out what there is of an event.
    pub(crate) fn remove(&self, key: EventKey) {
        self.writer
            .delete_term(Term::from_field_bytes(self.columns.key, &key.to_bytes()));
    }

    /// Takes out what there is of a room.
    pub(crate) fn remove_room(&self, room: EntityKey) {
        self.writer.delete_term(room_term(self.columns.room, room));
    }

    /// Makes all of it durable, with a text beside it.
    pub(crate) fn commit(&mut self, payload: &str) -> Result<(), Error> {
        let mut prepared = self.writer.prepare_commit()?;
        prepared.set_payload(payload);
        prepared.commit()?;
        Ok(())
    }
}

fn schema() -> (Schema, Columns) {
    let mut schema = Schema::builder();
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(ANALYZER)
        .set_index_option(IndexRecordOption::WithFreqs);
    let text = TextOptions::default().set_indexing_options(indexing);
    let columns = Columns {
        key: schema.add_bytes_field("key", INDEXED | STORED),
        room: schema.add_bytes_field("room", INDEXED),
        edit: schema.add_bytes_field("edit", INDEXED),
        sender: schema.add_text_field("sender", STRING),
        recent: schema.add_u64_field(RECENT, FAST),
        tie: schema.add_u64_field(TIE, FAST),
        body: schema.add_text_field("body", text.clone()),
        name: schema.add_text_field("name", text.clone()),
        topic: schema.add_text_field("topic", text),
    };
    (schema.build(), columns)
}
