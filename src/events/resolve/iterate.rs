//! The state that a resolution builds, and the check of events against it.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use ruma::UserId;
use smallvec::SmallVec;

use super::graph::{Graph, Node};
use super::{Conflicts, EventNo, ResolveError, Resolved};
use crate::auth_state::AuthContent;
use crate::{
    AuthInput, CreateInfo, JoinRuleInfo, MemberInfo, PowerLevels, Rules, StateView, ThirdPartyInviteInfo,
    auth_types, authorize,
};

/// Values by type and state key.
#[derive(Default)]
pub(super) struct KeyMap<T>(HashMap<Box<str>, HashMap<Box<str>, T>>);

impl<T> KeyMap<T> {
    pub fn get(&self, kind: &str, state_key: &str) -> Option<&T> {
        self.0.get(kind)?.get(state_key)
    }

    pub fn insert(&mut self, kind: &str, state_key: &str, value: T) {
        let of_kind = match self.0.get_mut(kind) {
            Some(of_kind) => of_kind,
            None => self.0.entry(kind.into()).or_default(),
        };
        of_kind.insert(state_key.into(), value);
    }

    pub fn remove(&mut self, kind: &str, state_key: &str) {
        if let Some(of_kind) = self.0.get_mut(kind) {
            of_kind.remove(state_key);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &T)> {
        self.0.iter().flat_map(|(kind, of_kind)| {
            of_kind
                .iter()
                .map(move |(state_key, value)| (&**kind, &**state_key, value))
        })
    }
}

/// The state so far.
pub(super) struct State {
    /// Whether it began with the unconflicted entries, or empty.
    with_unconflicted: bool,
    conflicted: KeyMap<()>,
    unconflicted: KeyMap<Option<EventNo>>,
    added: KeyMap<EventNo>,
}

impl State {
    pub fn new(conflicts: &Conflicts, with_unconflicted: bool) -> State {
        let mut conflicted = KeyMap::default();
        for key in &conflicts.keys {
            conflicted.insert(&key.kind, &key.state_key, ());
        }
        State {
            with_unconflicted,
            conflicted,
            unconflicted: KeyMap::default(),
            added: KeyMap::default(),
        }
    }

    pub fn get(
        &mut self,
        graph: &mut Graph<'_>,
        kind: &str,
        state_key: &str,
    ) -> Result<Option<EventNo>, ResolveError> {
        match self.added.get(kind, state_key) {
            Some(no) => Ok(Some(*no)),
            None if self.with_unconflicted => self.unconflicted(graph, kind, state_key),
            None => Ok(None),
        }
    }

    fn unconflicted(
        &mut self,
        graph: &mut Graph<'_>,
        kind: &str,
        state_key: &str,
    ) -> Result<Option<EventNo>, ResolveError> {
        if self.conflicted.get(kind, state_key).is_some() {
            return Ok(None);
        }
        if let Some(known) = self.unconflicted.get(kind, state_key) {
            return Ok(*known);
        }
        graph.step()?;
        let no = graph
            .source
            .unconflicted(kind, state_key)
            .map_err(ResolveError::Source)?;
        self.unconflicted.insert(kind, state_key, no);
        Ok(no)
    }

    pub fn add(&mut self, kind: &str, state_key: &str, no: EventNo) {
        self.added.insert(kind, state_key, no);
    }

    pub fn remove(&mut self, kind: &str, state_key: &str) {
        self.added.remove(kind, state_key);
    }

    /// What came out, with the unconflicted entries put back.
    pub fn finish(mut self, graph: &mut Graph<'_>, conflicts: &Conflicts) -> Result<Resolved, ResolveError> {
        let keys = conflicts.keys.iter();
        let keys = keys
            .map(|key| (key.no, self.added.get(&key.kind, &key.state_key).copied()))
            .collect();
        let mut more = Vec::new();
        for (kind, state_key, no) in std::mem::take(&mut self.added).iter() {
            let conflicted = self.conflicted.get(kind, state_key).is_some();
            if !conflicted && self.unconflicted(graph, kind, state_key)?.is_none() {
                more.push(*no);
            }
        }
        more.sort_unstable();
        Ok(Resolved { keys, more })
    }
}

/// The iterative auth checks ("Iterative auth checks").
pub(super) fn apply(
    graph: &mut Graph<'_>,
    state: &mut State,
    events: impl IntoIterator<Item = Rc<Node>>,
) -> Result<(), ResolveError> {
    for node in events {
        let Some((kind, state_key)) = node.key() else {
            continue;
        };
        if is_allowed(graph, state, &node, true)? {
            state.add(kind, state_key, node.no);
        }
    }
    Ok(())
}

/// Whether the authorization rules allow an event in this state. With `by_own_auth`, the event's own `auth_events` stand in for what the
/// state lacks.
///
/// Rejected events do not authorize others, wherever they come from. For those in the state the specification does not say so, but that is
/// what servers do.
pub(super) fn is_allowed(
    graph: &mut Graph<'_>,
    state: &mut State,
    node: &Node,
    by_own_auth: bool,
) -> Result<bool, ResolveError> {
    let rules = graph.rules;
    let pdu = node.pdu();
    let mut view = View::new(rules);
    if by_own_auth {
        for no in node.auth() {
            view.put(graph.node(*no)?);
        }
    }
    if rules.authorization.room_create_event_id_as_room_id && pdu.kind() != "m.room.create" {
        let create = graph.source.create().map_err(ResolveError::Source)?;
        view.put(graph.node(create)?);
    }
    for (kind, state_key) in auth_types(rules, pdu.sender(), pdu.kind(), pdu.state_key(), pdu.content()) {
        if let Some(no) = state.get(graph, &kind, &state_key)? {
            view.put(graph.node(no)?);
        }
    }
    Ok(authorize(rules, &AuthInput::of_pdu(rules, pdu), &view).is_ok())
}

/// The events that one event is judged by: few, so that looking through them is the quickest.
struct View<'a> {
    rules: &'a Rules,
    nodes: SmallVec<[Rc<Node>; 8]>,
}

impl<'a> View<'a> {
    fn new(rules: &'a Rules) -> View<'a> {
        View {
            rules,
            nodes: SmallVec::new(),
        }
    }

    fn put(&mut self, node: Rc<Node>) {
        if node.rejected() || node.key().is_none() {
            return;
        }
        match self.nodes.iter_mut().find(|other| other.key() == node.key()) {
            Some(place) => *place = node,
            None => self.nodes.push(node),
        }
    }

    fn content(&self, kind: &str, state_key: &str) -> Option<&AuthContent> {
        let node = self
            .nodes
            .iter()
            .find(|node| node.key() == Some((kind, state_key)));
        node.map(|node| node.content(self.rules))
    }
}

impl StateView for View<'_> {
    fn create(&self) -> Option<Arc<CreateInfo>> {
        match self.content("m.room.create", "")? {
            AuthContent::Create(create) => create.clone(),
            _ => None,
        }
    }

    fn power_levels(&self) -> Option<Arc<PowerLevels>> {
        match self.content("m.room.power_levels", "")? {
            AuthContent::PowerLevels(levels) => Some(levels.clone()),
            _ => None,
        }
    }

    fn join_rule(&self) -> JoinRuleInfo {
        match self.content("m.room.join_rules", "") {
            Some(AuthContent::JoinRules(rule)) => (**rule).clone(),
            _ => JoinRuleInfo::default(),
        }
    }

    fn member(&self, user: &UserId) -> Option<MemberInfo> {
        match self.content("m.room.member", user.as_str())? {
            AuthContent::Member(member) => *member,
            _ => None,
        }
    }

    fn third_party_invite(&self, token: &str) -> Option<Arc<ThirdPartyInviteInfo>> {
        match self.content("m.room.third_party_invite", token)? {
            AuthContent::ThirdPartyInvite(invite) => Some(invite.clone()),
            _ => None,
        }
    }
}
