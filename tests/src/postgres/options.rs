//! How a server is to be.

/// How a server is to be. The default lets everybody on loopback in and loses nothing it has acknowledged.
#[derive(Clone, Default)]
pub struct Options {
    /// Settings beyond those of the rig, which they replace: name and value as in `postgres -c name=value`.
    pub settings: Vec<(String, String)>,
    /// Asked for over TCP, by SCRAM-SHA-256. Without one everybody is let in.
    pub password: Option<String>,
    /// What is asked of connections over TCP.
    pub tls: Tls,
}

impl Options {
    /// With one more setting.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// TLS of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tls {
    /// Not spoken.
    #[default]
    Off,
    /// Connections without it are refused.
    Required,
    /// Required, and the client's certificate must name the user.
    ClientCertificate,
}
