//! Who sent a request: the `X-Matrix` authorization (server-server API, "Request authentication").

use std::fmt;
use std::sync::Arc;

use hearth_core::MatrixError;
use hearth_core::error::errcode;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ruma::{OwnedServerName, ServerName};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::client::Client;
use crate::keys::ServerKeys;

/// The longest header that is looked at: two server names, a key id and a signature are below 700 bytes.
const HEADER_MAX_BYTES: usize = 4 << 10;
/// The most such headers of a request: one for each of the sender's keys.
const HEADERS_MAX: usize = 8;
/// The most parameters of a header, unknown ones included.
const PARAMETERS_MAX: usize = 16;
/// The longest key id.
const KEY_ID_MAX_BYTES: usize = 255;

/// One `Authorization` header with the scheme `X-Matrix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XMatrix {
    /// Who says that he sends.
    pub origin: OwnedServerName,
    /// For whom the request is; servers before version 1.3 of the specification leave it out.
    pub destination: Option<OwnedServerName>,
    /// The id of the key.
    pub key: String,
    /// The signature, in base64.
    pub signature: String,
}

impl fmt::Display for XMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X-Matrix origin=\"{}\"", self.origin)?;
        if let Some(destination) = &self.destination {
            write!(f, ",destination=\"{destination}\"")?;
        }
        f.write_str(",key=")?;
        write_quoted(f, &self.key)?;
        f.write_str(",sig=")?;
        write_quoted(f, &self.signature)
    }
}

/// Writes a quoted string, in which quotes and backslashes stand behind a backslash (RFC 9110, "Quoted Strings").
fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    write!(f, "\"{escaped}\"")
}

impl XMatrix {
    /// Reads a header's value. `None` if it is not well formed, or of another scheme.
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.len() > HEADER_MAX_BYTES {
            return None;
        }
        let value = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
        let (scheme, rest) = value.split_once([' ', '\t'])?;
        if !scheme.eq_ignore_ascii_case("X-Matrix") {
            return None;
        }
        let (mut origin, mut destination, mut key, mut signature) = (None, None, None, None);
        let mut parameters = Parameters(rest);
        let mut count = 0;
        while let Some((name, value)) = parameters.next()? {
            count += 1;
            if count > PARAMETERS_MAX {
                return None;
            }
            let place = match name.to_ascii_lowercase().as_str() {
                "origin" => &mut origin,
                "destination" => &mut destination,
                "key" => &mut key,
                // The text of the specification names it "signature" once, everybody writes "sig".
                "sig" | "signature" => &mut signature,
                _ => continue,
            };
            // Of a parameter that is there twice, nobody knows which one was signed for.
            if place.replace(value).is_some() {
                return None;
            }
        }
        let server = |name: String| ServerName::parse(name).ok();
        let key = key?;
        if key.len() > KEY_ID_MAX_BYTES {
            return None;
        }
        Some(Self {
            origin: server(origin?)?,
            destination: match destination {
                Some(name) => Some(server(name)?),
                None => None,
            },
            key,
            signature: signature?,
        })
    }
}

/// What is left of a list of parameters.
struct Parameters<'a>(&'a str);

const SPACE: [char; 2] = [' ', '\t'];

impl<'a> Parameters<'a> {
    /// The next parameter: `Some(None)` at the end, `None` where the list is not well formed.
    #[expect(
        clippy::option_option,
        reason = "the end of the list and a bad list are different things"
    )]
    fn next(&mut self) -> Option<Option<(&'a str, String)>> {
        // A list may have empty elements (RFC 9110, 5.6.1).
        let rest = self.0.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            self.0 = rest;
            return Some(None);
        }
        let (name, rest) = rest.split_once('=')?;
        let name = name.trim_end_matches(SPACE);
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return None;
        }
        let rest = rest.trim_start_matches(SPACE);
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                // Old servers leave the quotes out where they are needed: take what comes up to the comma.
                let end = rest.find([',', ' ', '\t']).unwrap_or(rest.len());
                let (value, rest) = rest.split_at(end);
                if value.is_empty() || value.contains(['"', '\\']) {
                    return None;
                }
                (value.to_owned(), rest)
            }
        };
        let rest = rest.trim_start_matches(SPACE);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
        self.0 = rest;
        Some(Some((name, value)))
    }
}

/// The text of a quoted string behind its first quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// The characters of a token (RFC 9110, 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What the signature of a request covers.
pub(crate) fn signed_object(
    method: &str,
    uri: &str,
    origin: &ServerName,
    destination: &ServerName,
    content: Option<&Value>,
) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("method".to_owned(), method.into());
    object.insert("uri".to_owned(), uri.into());
    object.insert("origin".to_owned(), origin.as_str().into());
    object.insert("destination".to_owned(), destination.as_str().into());
    if let Some(content) = content {
        object.insert("content".to_owned(), content.clone());
    }
    object
}

/// The texts that the signature of a request may cover: with the body as it came, which nearly always is canonical, and else
/// with its canonical form. The body is not taken apart: what is nested deeper than one reads, or has numbers that one does
/// not hold, is a matter of the event that has it.
fn signed_texts(
    method: &str,
    uri: &str,
    (origin, destination): (&ServerName, &ServerName),
    body: &[u8],
) -> Result<Vec<Vec<u8>>, AuthFailure> {
    let object = signed_object(method, uri, origin, destination, None);
    let rest = hearth_events::signing_bytes(&object).map_err(|_| AuthFailure::NotJson)?;
    if body.is_empty() {
        return Ok(vec![rest]);
    }
    // The name of the content is the first of all in their order.
    let with = |content: &[u8]| [br#"{"content":"#, content, b",", &rest[1..]].concat();
    let mut texts = vec![with(body)];
    match hearth_events::canonical::canonicalize(body, false) {
        Ok(canonical) if *canonical == *body => {}
        Ok(canonical) => texts.push(with(&canonical)),
        Err(_) if serde_json::from_slice::<IgnoredAny>(body).is_ok() => {}
        Err(_) => return Err(AuthFailure::NotJson),
    }
    Ok(texts)
}

/// Why a request is not taken for what it says it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthFailure {
    /// There is no `X-Matrix` header.
    #[error("the request is not signed")]
    Missing,
    /// A header is not well formed, or there are too many.
    #[error("the Authorization header is not well formed")]
    Malformed,
    /// The request is for another server.
    #[error("the request is for another server")]
    Destination,
    /// The request comes from this server, or the headers name several servers.
    #[error("the request has no single other server as its origin")]
    Origin,
    /// The body is not JSON.
    #[error("the body is not JSON")]
    NotJson,
    /// The keys of the sender cannot be had.
    #[error("the key {key} of {origin} cannot be had, or is no longer valid")]
    NoKey {
        /// The sender.
        origin: OwnedServerName,
        /// The first key it names.
        key: String,
    },
    /// The signature does not fit.
    #[error("the signature of {origin} does not match the request")]
    Signature {
        /// The sender.
        origin: OwnedServerName,
    },
}

impl From<AuthFailure> for MatrixError {
    fn from(failure: AuthFailure) -> Self {
        match failure {
            AuthFailure::NotJson => MatrixError::not_json("The body is not JSON."),
            other => MatrixError::new(401, errcode::UNAUTHORIZED, format!("Unauthorized: {other}.")),
        }
    }
}

/// Finds out which server sent a request.
pub struct Authenticator {
    client: Arc<Client>,
    keys: Arc<ServerKeys>,
}

impl Authenticator {
    /// An authenticator that takes keys from `keys`, and tells the client who is alive.
    pub fn new(client: Arc<Client>, keys: Arc<ServerKeys>) -> Self {
        Self { client, keys }
    }

    /// The server that sent a request. `path_and_query` is the target as it came over the wire; `headers` are all
    /// headers of the request.
    pub async fn check(
        &self,
        method: &http::Method,
        path_and_query: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<OwnedServerName, AuthFailure> {
        let credentials = credentials(headers)?;
        let us = self.client.server_name();
        let Some(first) = credentials.first() else {
            return Err(AuthFailure::Missing);
        };
        for one in &credentials {
            if one.destination.as_deref().is_some_and(|name| name != us) {
                return Err(AuthFailure::Destination);
            }
            if one.origin == us || one.origin != first.origin {
                return Err(AuthFailure::Origin);
            }
        }
        let origin = first.origin.clone();
        let messages = signed_texts(method.as_str(), path_and_query, (&origin, us), body)?;
        let mut failure = AuthFailure::NoKey {
            origin: origin.clone(),
            key: first.key.clone(),
        };
        for one in &credentials {
            let Some(key) = self.keys.key_now(&origin, &one.key).await else {
                continue;
            };
            for message in &messages {
                if hearth_events::verify_bytes(message, &one.signature, &key).is_ok() {
                    self.client.seen(&origin);
                    return Ok(origin);
                }
            }
            failure = AuthFailure::Signature {
                origin: origin.clone(),
            };
        }
        Err(failure)
    }
}

/// All `X-Matrix` headers. Every one must be well formed; those of other schemes are not ours to judge.
fn credentials(headers: &HeaderMap) -> Result<Vec<XMatrix>, AuthFailure> {
    let mut found = Vec::new();
    for value in headers.get_all(AUTHORIZATION) {
        let value = value.as_bytes();
        let scheme = value
            .split(|byte| matches!(byte, b' ' | b'\t'))
            .find(|word| !word.is_empty());
        if !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"X-Matrix")) {
            continue;
        }
        if found.len() == HEADERS_MAX {
            return Err(AuthFailure::Malformed);
        }
        found.push(XMatrix::parse(value).ok_or(AuthFailure::Malformed)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
