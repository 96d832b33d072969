//! A small HTTP/1.1 client over one kept connection. It reuses its buffers and looks at nothing that a
//! measurement does not need, because the client shares the machine with the server.

use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::Range;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;

/// An answer larger than this ends the run.
const ANSWER_MAX_BYTES: usize = 256 << 20;

/// One connection, for one request at a time.
pub struct Conn {
    stream: TcpStream,
    request: Vec<u8>,
    input: Vec<u8>,
}

/// What the head of an answer says.
struct Head {
    status: u16,
    body_at: usize,
    length: Length,
}

enum Length {
    Bytes(usize),
    Chunked,
}

impl Conn {
    /// Opens a connection.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            request: Vec::with_capacity(512),
            input: Vec::with_capacity(1024),
        })
    }

    /// Opens connections one after the other: many at once would overrun the server's queue of new ones.
    pub async fn open_all(address: SocketAddr, count: usize) -> Result<Vec<Self>> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(Self::open(address).await?);
        }
        Ok(all)
    }

    /// One request; the status and the body of the answer.
    pub async fn call(
        &mut self,
        method: &str,
        target: &str,
        token: &str,
        body: &[u8],
    ) -> Result<(u16, &[u8])> {
        self.request.clear();
        write!(self.request, "{method} {target} HTTP/1.1\r\nhost: localhost\r\n")?;
        if !token.is_empty() {
            write!(self.request, "authorization: Bearer {token}\r\n")?;
        }
        if method != "GET" {
            write!(
                self.request,
                "content-type: application/json\r\ncontent-length: {}\r\n",
                body.len()
            )?;
        }
        self.request.extend_from_slice(b"\r\n");
        self.request.extend_from_slice(body);
        self.stream.write_all(&self.request).await?;
        self.input.clear();
        let head = loop {
            self.more().await?;
            if let Some(head) = Head::read(&self.input)? {
                break head;
            }
        };
        let body = match head.length {
            Length::Bytes(length) => self.sized_body(head.body_at, length).await?,
            Length::Chunked => self.chunked_body(head.body_at).await?,
        };
        Ok((head.status, &self.input[body]))
    }

    /// One request that must succeed.
    pub async fn ok(&mut self, method: &str, target: &str, token: &str, body: &[u8]) -> Result<&[u8]> {
        let (status, answer) = self.call(method, target, token, body).await?;
        if status == 200 {
            return Ok(answer);
        }
        let text = String::from_utf8_lossy(answer).into_owned();
        Err(format!("{method} {target}: {status} {text}").into())
    }

    /// One request with and for JSON that must succeed.
    pub async fn json(&mut self, method: &str, target: &str, token: &str, body: &Value) -> Result<Value> {
        let answer = self
            .ok(method, target, token, body.to_string().as_bytes())
            .await?;
        Ok(serde_json::from_slice(answer)?)
    }

    async fn more(&mut self) -> Result<()> {
        if self.input.len() > ANSWER_MAX_BYTES {
            return Err("an answer is too long".into());
        }
        self.input.reserve(1024);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err("the server closed the connection".into()),
            _ => Ok(()),
        }
    }

    async fn sized_body(&mut self, at: usize, length: usize) -> Result<Range<usize>> {
        self.input.reserve((at + length).saturating_sub(self.input.len()));
        while self.input.len() < at + length {
            self.more().await?;
        }
        Ok(at..at + length)
    }

    /// Moves the chunks together, where they are.
    async fn chunked_body(&mut self, at: usize) -> Result<Range<usize>> {
        let (mut read, mut end) = (at, at);
        loop {
            let line = loop {
                if let Some(found) = find(&self.input[read..], b"\r\n") {
                    break read + found;
                }
                self.more().await?;
            };
            let size = std::str::from_utf8(&self.input[read..line])?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
            while self.input.len() < line + 2 + size + 2 {
                self.more().await?;
            }
            if size == 0 {
                return Ok(at..end);
            }
            self.input.copy_within(line + 2..line + 2 + size, end);
            end += size;
            read = line + 2 + size + 2;
        }
    }
}

impl Head {
    /// The head, once it is there as a whole.
    fn read(input: &[u8]) -> Result<Option<Head>> {
        let Some(end) = find(input, b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&input[..end])?;
        let status = text
            .get(9..12)
            .and_then(|status| status.parse().ok())
            .ok_or("no status")?;
        let mut length = Length::Bytes(0);
        for line in text.split("\r\n").skip(1) {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = Length::Bytes(value.trim().parse()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                length = Length::Chunked;
            }
        }
        Ok(Some(Head {
            status,
            body_at: end + 4,
            length,
        }))
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Percent-encodes a text for a query or a path.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_once_whole() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nbody";
        assert!(Head::read(&text[..30]).unwrap().is_none());
        let head = Head::read(text).unwrap().unwrap();
        assert_eq!((head.status, head.body_at), (200, 39));
        assert!(matches!(head.length, Length::Bytes(12)));
    }

    #[test]
    fn texts_are_encoded() {
        assert_eq!(encode("!a:b c"), "%21a%3Ab%20c");
    }
}
