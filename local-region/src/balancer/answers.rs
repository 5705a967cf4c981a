//! What the balancer answers by itself: fixed responses, redirects, and errors in the form of AWS's.

use bytes::Bytes;
use http::header;
use jiff::Timestamp;
use pingora_core::{Error, ErrorSource, ErrorType};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

/// The `Server` header of an application load balancer.
const SERVER: &str = "awselb/2.0";

/// An answer without a target.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub content_type: Option<String>,
    pub location: Option<String>,
    pub body: Bytes,
}

impl Answer {
    /// An error page like AWS's.
    pub fn error(status: u16) -> Self {
        let name = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let title = format!("{status} {}", name.unwrap_or("Error"));
        let body = format!(
            "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n\
             </body>\r\n</html>\r\n"
        );
        Self { status, content_type: Some("text/html".into()), location: None, body: body.into() }
    }

    pub fn redirect(status: u16, location: String) -> Self {
        Self { location: Some(location), ..Self::error(status) }
    }

    fn header(&self, now: Timestamp) -> pingora_core::Result<ResponseHeader> {
        let mut header = ResponseHeader::build(self.status, Some(5))?;
        header.insert_header(header::SERVER, SERVER)?;
        header.insert_header(header::DATE, now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())?;
        header.insert_header(header::CONTENT_LENGTH, self.body.len())?;
        if let Some(content_type) = &self.content_type {
            header.insert_header(header::CONTENT_TYPE, content_type.as_str())?;
        }
        if let Some(location) = &self.location {
            header.insert_header(header::LOCATION, location.as_str())?;
        }
        Ok(header)
    }

    /// Sends it, and leaves the connection open for more requests.
    ///
    /// # Errors
    /// Where the client is gone, or a part of the answer cannot stand in a header.
    pub async fn send(self, session: &mut Session, now: Timestamp) -> pingora_core::Result<()> {
        let without_body = session.req_header().method == http::Method::HEAD || self.body.is_empty();
        session.write_response_header(Box::new(self.header(now)?), without_body).await?;
        if !without_body {
            session.write_response_body(Some(self.body), true).await?;
        }
        Ok(())
    }

    /// Sends it, and closes the connection afterwards: the request was not read to its end, or half an answer may be
    /// on its way.
    pub async fn send_and_close(self, session: &mut Session, now: Timestamp) -> pingora_core::Result<()> {
        session.downstream_session.write_error_response(self.header(now)?, self.body).await
    }
}

/// The status for a request that failed on its way, as *Troubleshoot your Application Load Balancers* lists them;
/// `None` where the client is gone.
pub fn status_of(error: &Error) -> Option<u16> {
    match (error.esource(), error.etype()) {
        (_, ErrorType::HTTPStatus(status)) => Some(*status),
        // The target did not answer in time.
        (ErrorSource::Upstream, ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout) => {
            Some(504)
        }
        (ErrorSource::Upstream, _) => Some(502),
        // The client did not send its request in time.
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => Some(408),
        (ErrorSource::Downstream, ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed) => None,
        (ErrorSource::Downstream, _) => Some(400),
        (ErrorSource::Internal | ErrorSource::Unset, _) => Some(500),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_the_status_that_aws_gives_it() {
        let up = |kind| status_of(&Error::new_up(kind));
        assert_eq!(up(ErrorType::ConnectRefused), Some(502));
        assert_eq!(up(ErrorType::ConnectionClosed), Some(502));
        assert_eq!(up(ErrorType::ConnectTimedout), Some(504));
        assert_eq!(up(ErrorType::ReadTimedout), Some(504));
        let down = |kind| status_of(&Error::new_down(kind));
        assert_eq!(down(ErrorType::ConnectionClosed), None);
        assert_eq!(down(ErrorType::InvalidHTTPHeader), Some(400));
        assert_eq!(down(ErrorType::ReadTimedout), Some(408));
    }

    #[test]
    fn dates_are_in_the_form_of_http() {
        let header = Answer::error(503).header(Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(header.headers[header::DATE], "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
