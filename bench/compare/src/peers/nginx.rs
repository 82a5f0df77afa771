//! nginx, from Debian: HTTP and TLS.

use std::{fs, path::Path};

use anyhow::Result;

use super::{Launch, Peer, Place, output};
use crate::{scenario::Scenario, tools::Tools};

#[derive(Debug)]
pub(crate) struct Nginx;

impl Peer for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn title(&self) -> &'static str {
        "nginx"
    }

    fn can(&self, scenario: Scenario) -> bool {
        matches!(
            scenario,
            Scenario::Http | Scenario::HttpDepth16 | Scenario::TlsHandshakes
        )
    }

    fn prepare(&self, _scenarios: &[Scenario], tools: &Tools) -> Result<String> {
        tools.install(PROGRAM.as_ref(), &["nginx-light"])?;
        let version = output(PROGRAM, &["-v"])?;
        Ok(version.replace("nginx version: nginx/", "nginx "))
    }

    fn launch(&self, scenario: Scenario, place: &Place<'_>, tools: &Tools) -> Result<Launch> {
        let template = fs::read_to_string(tools.peer("nginx/nginx.conf")?)?;
        let keys = tools.keys();
        let (listen, tls) = match scenario.is_tls() {
            true => (
                "ssl",
                format!(
                    "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3;",
                    keys.certificate()?,
                    keys.key()?
                ),
            ),
            false => ("", String::new()),
        };
        let settings = template
            .replace("PORT", &place.port.to_string())
            .replace("LISTEN", listen)
            .replace("# TLS", &tls);
        fs::write(place.home.join("nginx.conf"), settings)?;
        let home = place.home.as_os_str();
        Ok(Launch::new(
            PROGRAM,
            [
                "-p".as_ref(),
                home,
                "-c".as_ref(),
                Path::new("nginx.conf").as_os_str(),
            ],
        ))
    }
}

/// Debian does not have it in the path of users.
const PROGRAM: &str = "/usr/sbin/nginx";
