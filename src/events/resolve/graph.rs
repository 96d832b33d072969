use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{EventNo, ResolveError, ResolveEvent, ResolveSource, STEPS_MAX};
use crate::auth_state::AuthContent;
use crate::{Pdu, Rules};

/// The events that one resolution has seen, with what was parsed of them, and the count of its steps.
pub(super) struct Graph<'a> {
    pub rules: &'a Rules,
    pub source: &'a dyn ResolveSource,
    pub numbers_ascend: bool,
    /// No event with a greater number is in any state set or its chain.
    pub newest: EventNo,
    nodes: HashMap<EventNo, Rc<Node>>,
    steps: u64,
}

impl<'a> Graph<'a> {
    pub fn new(rules: &'a Rules, source: &'a dyn ResolveSource) -> Graph<'a> {
        let numbers_ascend = source.numbers_ascend();
        Graph {
            rules,
            source,
            numbers_ascend,
            newest: if numbers_ascend {
                source.newest()
            } else {
                EventNo::MAX
            },
            nodes: HashMap::new(),
            steps: 0,
        }
    }

    /// Counts something done.
    pub fn step(&mut self) -> Result<(), ResolveError> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(ResolveError::TooMuch);
        }
        Ok(())
    }

    /// An event.
    pub fn node(&mut self, no: EventNo) -> Result<Rc<Node>, ResolveError> {
        self.step()?;
        if let Some(node) = self.nodes.get(&no) {
            return Ok(node.clone());
        }
        let event = self.source.event(no).map_err(ResolveError::Source)?;
        self.check_order(no, event.auth())?;
        let node = Rc::new(Node {
            no,
            event,
            content: OnceCell::new(),
        });
        self.nodes.insert(no, node.clone());
        Ok(node)
    }

    /// What an event cites.
    pub fn auth(&mut self, no: EventNo) -> Result<SmallVec<[EventNo; 4]>, ResolveError> {
        self.step()?;
        if let Some(node) = self.nodes.get(&no) {
            return Ok(node.event.auth().into());
        }
        let auth = self.source.auth(no).map_err(ResolveError::Source)?;
        self.check_order(no, &auth)?;
        Ok(auth)
    }

    fn check_order(&self, no: EventNo, auth: &[EventNo]) -> Result<(), ResolveError> {
        if self.numbers_ascend && auth.iter().any(|cited| *cited >= no) {
            return Err(ResolveError::Disorder(no));
        }
        Ok(())
    }

    /// The power levels event that an event cites.
    pub fn power_levels_of(&mut self, node: &Node) -> Result<Option<Rc<Node>>, ResolveError> {
        for no in node.event.auth() {
            let cited = self.node(*no)?;
            if cited.key() == Some(("m.room.power_levels", "")) {
                return Ok(Some(cited));
            }
        }
        Ok(None)
    }
}

/// An event.
pub(super) struct Node {
    pub no: EventNo,
    event: Arc<dyn ResolveEvent>,
    content: OnceCell<AuthContent>,
}

impl Node {
    pub fn pdu(&self) -> &Pdu {
        self.event.pdu()
    }

    pub fn auth(&self) -> &[EventNo] {
        self.event.auth()
    }

    pub fn rejected(&self) -> bool {
        self.event.rejected()
    }

    /// Its type and state key, of state events only.
    pub fn key(&self) -> Option<(&str, &str)> {
        let pdu = self.pdu();
        Some((pdu.kind(), pdu.state_key()?))
    }

    /// What authorization reads of it.
    pub fn content(&self, rules: &Rules) -> &AuthContent {
        self.content.get_or_init(|| {
            let pdu = self.pdu();
            let Some(state_key) = pdu.state_key() else {
                return AuthContent::Nothing;
            };
            let content = AuthContent::parse(
                rules,
                pdu.kind(),
                state_key,
                &pdu.event_id,
                pdu.sender(),
                pdu.content(),
            );
            content.unwrap_or_else(|_| AuthContent::unreadable(pdu.kind(), pdu.sender()))
        })
    }
}
