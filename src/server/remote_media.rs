//! Files of other servers (server-server API, "Content Repository"): asked for over federation, with the older public
//! endpoint for servers that do not have the new one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hearth_core::http::{Destination, OutboundRequest, OutboundResponse, SharedOutbound, TransportError};
use hearth_federation::{Asker, ClientError, FedRequest, Federation, client};
use hearth_media::{ByteStream, Error, MediaId, RemoteContent, RemoteMedia, file_name_of};
use http::{HeaderMap, Method, header};

/// The time for a file beyond what the client wants to wait for its upload.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60);
/// The description, the boundaries and the headers of the parts, beside the file.
const ENVELOPE_MAX_BYTES: u64 = 64 << 10;

/// The headers of a part that are read. A map of headers takes no more than some thousands, and another server may send any
/// number.
const PART_HEADERS: [header::HeaderName; 3] = [
    header::CONTENT_TYPE,
    header::CONTENT_DISPOSITION,
    header::LOCATION,
];

/// Asks other servers for files.
pub(crate) struct FederatedMedia {
    federation: Arc<Federation>,
    outbound: SharedOutbound,
    max_file_bytes: u64,
}

impl FederatedMedia {
    pub(crate) fn new(federation: Arc<Federation>, outbound: SharedOutbound, max_file_bytes: u64) -> Self {
        Self {
            federation,
            outbound,
            max_file_bytes,
        }
    }

    fn max_response_bytes(&self) -> usize {
        usize::try_from(self.max_file_bytes + ENVELOPE_MAX_BYTES).unwrap_or(usize::MAX)
    }

    async fn ask(
        &self,
        media: &MediaId,
        path: String,
        wait: Duration,
    ) -> Result<OutboundResponse, ClientError> {
        let request = FedRequest::get(media.server(), path)
            .timeout(wait + TRANSFER_TIMEOUT)
            .max_response_bytes(self.max_response_bytes())
            .asker(Asker::Reader);
        self.federation.client.request(request).await
    }

    /// The file lies elsewhere, at a plain address.
    async fn follow(&self, location: &str) -> Result<RemoteContent, Error> {
        let away = |why: &str| Error::Remote(why.to_owned());
        let start = location
            .find("://")
            .map(|at| at + 3)
            .ok_or_else(|| away("the redirect is no URL"))?;
        let slash = location[start..].find('/').map(|at| at + start);
        let (base, path) = location.split_at(slash.unwrap_or(location.len()));
        let request = OutboundRequest {
            destination: Destination::Url(base.to_owned()),
            method: Method::GET,
            path_and_query: if path.is_empty() {
                "/".to_owned()
            } else {
                path.to_owned()
            },
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: TRANSFER_TIMEOUT,
            max_response_bytes: self.max_response_bytes(),
        };
        let response = self.outbound.send(request).await;
        let response = response.map_err(|error| match error {
            TransportError::TooLarge => self.too_large(),
            error => Error::Remote(error.to_string()),
        })?;
        match response.status.is_success() {
            true => Ok(content(&response.headers, response.body)),
            false => Err(away("the address of the file does not have it")),
        }
    }

    fn failure(&self, error: &ClientError) -> Error {
        match error {
            ClientError::Status { status: 404, .. } => Error::NotFound,
            ClientError::Status { status: 504, .. } => Error::NotYetUploaded,
            ClientError::Transport {
                error: TransportError::TooLarge,
                ..
            } => self.too_large(),
            _ => Error::Remote(error.to_string()),
        }
    }

    fn too_large(&self) -> Error {
        Error::RemoteTooLarge {
            limit_bytes: self.max_file_bytes,
        }
    }
}

#[async_trait]
impl RemoteMedia for FederatedMedia {
    async fn fetch(&self, media: &MediaId, timeout: Duration) -> Result<RemoteContent, Error> {
        let query = client::query([("timeout_ms", timeout.as_millis().to_string().as_str())]);
        let path = client::path(&["_matrix", "federation", "v1", "media", "download", media.id()]);
        match self.ask(media, format!("{path}{query}"), timeout).await {
            Ok(response) => {
                let part =
                    parse(&response).ok_or_else(|| Error::Remote("the answer is not readable".to_owned()))?;
                match part {
                    Part::File(content) => Ok(content),
                    Part::Elsewhere(location) => self.follow(&location).await,
                }
            }
            // A server that knows only the older endpoint.
            Err(error) if error.is_unrecognized() || error.is_no_matrix_answer() => {
                let server = media.server().as_str();
                let path = client::path(&["_matrix", "media", "v3", "download", server, media.id()]);
                let response = self
                    .ask(media, format!("{path}?allow_remote=false"), timeout)
                    .await;
                let response = response.map_err(|error| self.failure(&error))?;
                Ok(content(&response.headers, response.body))
            }
            Err(error) => Err(self.failure(&error)),
        }
    }
}

fn content(headers: &HeaderMap, body: Bytes) -> RemoteContent {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let body: ByteStream = Box::pin(futures::stream::once(async move { Ok(body) }));
    RemoteContent {
        content_type: text(header::CONTENT_TYPE).map(str::to_owned),
        file_name: text(header::CONTENT_DISPOSITION).and_then(file_name_of),
        body,
    }
}

enum Part {
    File(RemoteContent),
    Elsewhere(String),
}

/// The second part of the answer: the file, or where it lies.
fn parse(response: &OutboundResponse) -> Option<Part> {
    let kind = response.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let boundary = kind.split(';').map(str::trim).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.eq_ignore_ascii_case("boundary")
            .then(|| value.trim_matches('"'))
    })?;
    let body = &response.body;
    let mark = format!("--{boundary}").into_bytes();
    let first = find(body, &mark, 0)? + mark.len();
    // Line breaks belong to the boundary.
    let between = [b"\r\n", mark.as_slice()].concat();
    let second = find(body, &between, first)? + between.len();
    // The last boundary of all ends the file.
    let closing = [between.as_slice(), b"--"].concat();
    let end = memchr::memmem::rfind(body, &closing)?;
    let head_end = find(body, b"\r\n\r\n", second)?;
    let mut headers = HeaderMap::new();
    for line in body.get(second..head_end)?.split(|byte| *byte == b'\n') {
        let line = std::str::from_utf8(line).ok()?.trim();
        if let Some((name, value)) = line.split_once(':')
            && let (Ok(name), Ok(value)) = (name.trim().parse::<header::HeaderName>(), value.trim().parse())
            && PART_HEADERS.contains(&name)
        {
            headers.insert(name, value);
        }
    }
    if let Some(location) = headers.get(header::LOCATION) {
        return Some(Part::Elsewhere(location.to_str().ok()?.to_owned()));
    }
    let start = head_end + 4;
    (start <= end).then(|| Part::File(content(&headers, body.slice(start..end))))
}

fn find(text: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    memchr::memmem::find(text.get(from..)?, wanted).map(|at| at + from)
}

#[cfg(test)]
mod tests {
    use hearth_core::random::{Random as _, SeededRandom};

    use super::*;

    fn answer(kind: &'static str, body: &'static str) -> OutboundResponse {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
        OutboundResponse {
            status: http::StatusCode::OK,
            headers,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn parts() {
        let kind = "multipart/mixed; boundary=\"x\"";
        let file = answer(
            kind,
            "--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\nContent-Type: text/plain\r\n\r\n--x is text\r\n--x--",
        );
        match parse(&file) {
            Some(Part::File(found)) => assert_eq!(found.content_type.as_deref(), Some("text/plain")),
            _ => panic!("no file"),
        }
        let away = answer(
            kind,
            "--x\r\n\r\n{}\r\n--x\r\nLocation: https://cdn/y\r\n\r\n\r\n--x--",
        );
        assert!(matches!(parse(&away), Some(Part::Elsewhere(place)) if place == "https://cdn/y"));
        for wrong in ["", "--x", "--x\r\n--x\r\n\r\n", "--x\r\n\r\n--x--\r\n--x"] {
            assert!(parse(&answer(kind, wrong)).is_none(), "{wrong:?}");
        }
        assert!(parse(&answer("text/plain", "--x")).is_none());
    }

    #[test]
    fn a_part_may_have_any_number_of_headers() {
        let mut body = "--x\r\n\r\n{}\r\n--x\r\nContent-Type: text/plain\r\n".to_owned();
        for number in 0..50_000 {
            body.push_str(&format!("x{number}: y\r\n"));
        }
        body.push_str("\r\nthe file\r\n--x--");
        let mut answer = answer("multipart/mixed; boundary=x", "");
        answer.body = body.into();
        match parse(&answer) {
            Some(Part::File(found)) => assert_eq!(found.content_type.as_deref(), Some("text/plain")),
            _ => panic!("no file"),
        }
    }

    /// Answers that are cut, spliced and changed at random: whatever comes, it is read or refused.
    #[test]
    fn any_bytes_are_read_or_refused() {
        const ROUNDS: usize = 20_000;
        let whole: &[u8] = b"--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\nContent-Type: text/plain\r\n\
            Content-Disposition: attachment; filename=\"a\"\r\n\r\nthe file\r\n--x\r\nLocation: https://cdn/y\r\n\r\n\r\n--x--\r\n";
        let kinds = [
            "multipart/mixed; boundary=x",
            "multipart/mixed; boundary=\"x\"; charset=y",
            "multipart/mixed; boundary=",
            "multipart/mixed; boundary=\r",
            "boundary",
            ";=;\"",
        ];
        let random = SeededRandom::new(1);
        let pick = |below: usize| {
            let mut bytes = [0; 4];
            random.fill(&mut bytes);
            u32::from_le_bytes(bytes) as usize % below.max(1)
        };
        let mut read = 0;
        for _ in 0..ROUNDS {
            let mut body = whole.to_vec();
            for _ in 0..pick(4) {
                let (at, to) = (pick(body.len()), pick(body.len()));
                let range = at.min(to)..at.max(to);
                match pick(4) {
                    0 => body.truncate(at),
                    1 => drop(body.drain(range)),
                    2 => {
                        let copy = body[range].to_vec();
                        drop(body.splice(at..at, copy));
                    }
                    _ if !body.is_empty() => body[at] = pick(256) as u8,
                    _ => {}
                }
            }
            let mut headers = HeaderMap::new();
            if let Ok(kind) = http::HeaderValue::from_str(kinds[pick(kinds.len())]) {
                headers.insert(header::CONTENT_TYPE, kind);
            }
            let response = OutboundResponse {
                status: http::StatusCode::OK,
                headers,
                body: body.into(),
            };
            read += usize::from(parse(&response).is_some());
        }
        assert!((ROUNDS / 20..ROUNDS).contains(&read), "{read} were read");
    }
}
