//! Passing over all rows of a family, page by page, to remove what is old: for rows that nobody would come back to.

use std::sync::Arc;

use hearth_core::Pool;
use hearth_storage::{Batch, Error, Family, Log, Reader, Record, Slot};

use crate::Cluster;

/// So many rows are looked at in one section of the pool, and change in one batch at the most.
const PAGE_ROWS: usize = 1_000;

/// What is to become of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Keep,
    /// It goes.
    Remove,
    /// It gets another value.
    Replace(Vec<u8>),
}

/// The rows of a page that change, in the order of their keys, and where the next page begins.
struct Page {
    changes: Vec<(Vec<u8>, Fate)>,
    next: Option<Vec<u8>>,
}

impl Cluster {
    /// Looks at all rows of a family whose keys begin with a slot, and changes those that `judge` wants changed: each in a
    /// batch of its shard. Gives how many that were. A row may have changed since it was looked at, so `judge` must be
    /// right for whatever value the key can get.
    pub async fn sweep(
        &self,
        pool: &Pool,
        family: Family,
        judge: impl Fn(&[u8], &[u8]) -> Fate + Send + Sync + 'static,
    ) -> Result<u64, Error> {
        let judge = Arc::new(judge);
        let mut changed = 0;
        let mut start = Some(Vec::new());
        while let Some(from) = start.take() {
            let (log, judge) = (Arc::clone(self.log()), Arc::clone(&judge));
            let page = pool.run(move || read_page(&log, family, &from, &*judge)).await?;
            start = page.next;
            changed += page.changes.len() as u64;
            self.change_rows(family, page.changes).await?;
            tokio::task::yield_now().await;
        }
        Ok(changed)
    }

    /// Slots rise with the keys, so the rows of one shard stand together.
    async fn change_rows(&self, family: Family, rows: Vec<(Vec<u8>, Fate)>) -> Result<(), Error> {
        let mut rows = rows.into_iter().peekable();
        while let Some((key, _)) = rows.peek() {
            let slot = slot_of_key(key).ok_or(Error::Corrupt("key without a slot"))?;
            let shard = self.log().shard_of(slot);
            let mut batch = Batch::new();
            let same = |(key, _): &(Vec<u8>, Fate)| {
                slot_of_key(key).is_some_and(|slot| self.log().shard_of(slot) == shard)
            };
            while let Some((key, fate)) = rows.next_if(same) {
                match fate {
                    Fate::Keep => {}
                    Fate::Remove => batch.delete(family, key),
                    Fate::Replace(value) => batch.put(family, key, value),
                }
            }
            self.commit(slot, |_| Record::of(batch)).await?;
        }
        Ok(())
    }
}

fn slot_of_key(key: &[u8]) -> Option<Slot> {
    let number = key.first_chunk().copied().map(u16::from_be_bytes)?;
    Slot::new(number)
}

fn read_page(
    log: &Log,
    family: Family,
    from: &[u8],
    judge: &dyn Fn(&[u8], &[u8]) -> Fate,
) -> Result<Page, Error> {
    let mut page = Page {
        changes: Vec::new(),
        next: None,
    };
    let mut rows = 0;
    let reader: &dyn Reader = &**log.engine();
    reader.scan(family, from, &[0xFF; 8], false, &mut |key, value| {
        if rows == PAGE_ROWS {
            page.next = Some(key.to_vec());
            return false;
        }
        rows += 1;
        match judge(key, value) {
            Fate::Keep => {}
            fate => page.changes.push((key.to_vec(), fate)),
        }
        true
    })?;
    Ok(page)
}
