//! An HTTP/1.1 connection that costs the client next to nothing.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

use crate::Outcome;

/// Longer answers are none of a bench.
const BODY_BYTES_MAX: usize = 1 << 26;

pub(crate) struct Connection {
    stream: BufStream<TcpStream>,
    line: String,
    body: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) body_bytes: usize,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufStream::new(stream), line: String::new(), body: Vec::new() })
    }

    pub(crate) async fn get(&mut self, path: &str) -> Outcome<Answer> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
        self.send(&head, &[]).await
    }

    pub(crate) async fn post(&mut self, path: &str, media_type: &str, body: &[u8]) -> Outcome<Answer> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
            body.len(),
        );
        self.send(&head, body).await
    }

    /// The body of the last answer.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    async fn send(&mut self, head: &str, body: &[u8]) -> Outcome<Answer> {
        self.stream.write_all(head.as_bytes()).await?;
        self.stream.write_all(body).await?;
        self.stream.flush().await?;
        self.read_line().await?;
        let status = self.line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut answer =
            Answer { status: status.ok_or("the answer is not HTTP")?, location: None, body_bytes: 0 };
        loop {
            self.read_line().await?;
            let Some((name, value)) = self.line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                answer.body_bytes = value.trim().parse()?;
            } else if name.eq_ignore_ascii_case("location") {
                answer.location = Some(value.trim().to_owned());
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err("an answer of unknown length is not measured".into());
            }
        }
        if answer.body_bytes > BODY_BYTES_MAX {
            return Err(format!("an answer of {} bytes", answer.body_bytes).into());
        }
        self.body.resize(answer.body_bytes, 0);
        self.stream.read_exact(&mut self.body).await?;
        Ok(answer)
    }

    async fn read_line(&mut self) -> Outcome<()> {
        self.line.clear();
        match self.stream.read_line(&mut self.line).await? {
            0 => Err("the server closed the connection".into()),
            _ => Ok(()),
        }
    }
}
