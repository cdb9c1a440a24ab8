//! What is done beside claiming and appending.

use super::appender::Appender;
use super::connection::Connection;
use super::notices::NoticeOrder;
use super::sessions::SessionOrder;
use crate::audit::ledger::log::Head;
use crate::audit::ledger::opening::Opening;
use tokio::sync::oneshot;

/// Something to be done. Who waits and is dropped does not know whether it was.
#[derive(Debug)]
pub(super) enum Order {
    /// Append records from now on, to a log of this process.
    Begin { opening: Box<Opening>, reply: oneshot::Sender<()> },
    /// Seal that log, and take no more.
    Close(oneshot::Sender<Option<Head>>),
    /// Keep a checkpoint.
    Checkpoint { head: Head, note: String, reply: oneshot::Sender<()> },
    /// Note that a log is archived.
    Archived { log: String, reply: oneshot::Sender<()> },
    /// Remove a part of what is archived of it. Says whether there may be more.
    Remove { log: String, reply: oneshot::Sender<bool> },
    /// Note how often the Lease was written.
    LeaseWrites { writes: i64, reply: oneshot::Sender<()> },
    /// Something about notifications.
    Notices(NoticeOrder),
    /// Begin, find or end a session of the portal.
    Session(SessionOrder),
    /// Close the database. Whatever else is asked is not answered any more.
    End(oneshot::Sender<()>),
}

impl Order {
    pub(super) async fn carry_out(self, connection: &mut Connection, ledger: Option<&mut Appender>) -> sqlx::Result<()> {
        match (self, ledger) {
            // The keeper does it: it needs no database.
            (Self::Begin { .. } | Self::End(_), _) | (Self::Close(_), None) => {}
            (Self::Close(reply), Some(ledger)) => _ = reply.send(ledger.close(connection).await?),
            (Self::Checkpoint { head, note, reply }, _) => {
                connection.keep_checkpoint(&head, &note).await?;
                _ = reply.send(());
            }
            (Self::Archived { log, reply }, _) => {
                connection.mark_archived(&log).await?;
                _ = reply.send(());
            }
            (Self::LeaseWrites { writes, reply }, _) => {
                connection.note_lease_writes(writes).await?;
                _ = reply.send(());
            }
            (Self::Notices(order), _) => order.carry_out(connection).await?,
            (Self::Session(order), _) => order.carry_out(connection).await?,
            (Self::Remove { log, reply }, _) => _ = reply.send(connection.remove_archived(&log).await?),
        }
        Ok(())
    }
}
