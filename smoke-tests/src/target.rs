//! What a suite is run against.

use std::{collections::BTreeMap, path::PathBuf};

use alcedo_pipeline::file::VersionProbe;
use url::Url;

/// One server, or one route to the servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Scheme, host and port that `http` checks are sent to; a path in it is replaced by the check's.
    pub url: Url,
    /// The server's name or address: for `tcp` checks, and `ALCEDO_HOST` of programs.
    pub host: String,
    /// The port clients use: `ALCEDO_PORT` of programs.
    pub port: u16,
    /// The port of a `tcp` check that names none.
    pub app_port: u16,
    /// Headers added to every HTTP request: those that a preview rule asks for. Empty where the server is reached
    /// directly. A check's own header of the same name wins.
    pub preview_headers: BTreeMap<String, String>,
    /// The version that must answer: `ALCEDO_VERSION` of programs.
    pub version: Option<String>,
    /// How an answer tells its version. With [`Target::version`], the suite begins by asking.
    pub version_probe: Option<VersionProbe>,
    /// Where a program's relative path starts, and its working directory: the folder of `alcedo.yaml`.
    pub folder: PathBuf,
}

impl Target {
    /// A server reached directly at `http://host:port`, with nothing known of its version.
    pub fn server(host: &str, port: u16) -> Result<Self, url::ParseError> {
        let bracketed =
            if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        Ok(Self {
            url: Url::parse(&format!("http://{bracketed}:{port}/"))?,
            host: host.to_owned(),
            port,
            app_port: port,
            preview_headers: BTreeMap::new(),
            version: None,
            version_probe: None,
            folder: PathBuf::from("."),
        })
    }

    /// The target's URL with this path and query. Nothing in `path` can change the host.
    pub fn at(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(path);
        url.set_query(query);
        url.set_fragment(None);
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_change_the_host() {
        let target = Target::server("10.0.0.7", 8080).unwrap();
        for path in ["//evil.example/", "/a?b=c", "/@evil.example/", "/a#b"] {
            let url = target.at(path);
            assert_eq!((url.host_str(), url.port()), (Some("10.0.0.7"), Some(8080)), "{path} became {url}");
        }
        assert_eq!(target.at("/a?b=c").as_str(), "http://10.0.0.7:8080/a?b=c");
    }

    #[test]
    fn an_ipv6_address_is_bracketed() {
        assert_eq!(Target::server("::1", 80).unwrap().url.as_str(), "http://[::1]/");
    }
}
