//! Writing to the entity of a server from which things come.

use std::sync::Arc;
use std::time::Duration;

use hearth_cluster::Cluster;
use hearth_rooms::Error;
use hearth_storage::schema::remote_user::RemoteUserKey;
use hearth_storage::{Batch, Engine, EntityKey, EntityKind, Position, Record, entity, slot_of};
use ruma::ServerName;

/// How often a name that another batch takes at the moment is looked for again, and how long after each.
const CREATE_ATTEMPTS: u32 = 200;
const CREATE_PAUSE: Duration = Duration::from_millis(5);

pub(crate) struct ServerRows(Arc<Cluster>);

impl ServerRows {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self(cluster)
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        &**self.0.log().engine()
    }

    pub(crate) fn key(&self, server: &ServerName) -> Result<Option<EntityKey>, Error> {
        let reader = self.0.log().engine().as_ref();
        Ok(entity(reader, EntityKind::Server, server.as_str())?)
    }

    /// Commits one record of the server's entity, and waits for its effects on others. The entity is made if need be.
    pub(crate) async fn write(
        &self,
        server: &ServerName,
        build: impl FnOnce(EntityKey, Position, &mut Record),
    ) -> Result<(), Error> {
        let mut created = Batch::new();
        let key = self.key_for_write(server, &mut created).await?;
        let build = |position| {
            let mut record = Record::of(created);
            build(key, position, &mut record);
            record
        };
        self.0.commit(slot_of(server.as_str()), build).await?;
        Ok(())
    }

    async fn key_for_write(&self, server: &ServerName, batch: &mut Batch) -> Result<EntityKey, Error> {
        for _ in 0..CREATE_ATTEMPTS {
            if let Some(key) = self.key(server)? {
                return Ok(key);
            }
            match self.0.log().allocate(EntityKind::Server, server.as_str(), batch) {
                Err(hearth_storage::Error::Exists) => tokio::time::sleep(CREATE_PAUSE).await,
                made => return Ok(made?),
            }
        }
        Err(Error::Storage(hearth_storage::Error::Exists))
    }
}

/// Kinds of rows.
pub(crate) mod kind {
    pub(crate) const LIST: u8 = 1;
    pub(crate) const DEVICE: u8 = 2;
    pub(crate) const MESSAGE: u8 = 3;
    pub(crate) const MESSAGE_ID: u8 = 4;
}

pub(crate) fn row(server: EntityKey, kind: u8, key: &[u8]) -> Vec<u8> {
    RemoteUserKey {
        server,
        kind,
        key: key.into(),
    }
    .encode()
}
