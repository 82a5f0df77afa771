//! Settings from a TOML file: the names of [`Settings`], and `[[listeners]]`.
//!
//! The i-th `[[listeners]]` changes the i-th listener of the program, setting by setting; one more
//! than the program has adds a listener.

use std::path::Path;

use toml::{
    Spanned,
    de::{DeInteger, DeTable, DeValue},
};

use super::{
    CertificateFiles, Listener, Settings, Tls,
    fields::{
        Field, Given, choose, nearest, of_certificate, of_framing, of_listener, of_server, of_tls,
    },
    framing::{Draft, Framing},
    origins::Named,
};
use crate::{Error, Result, control::SettingSource};

/// Changes `settings` by what stands in the file.
pub(super) fn apply(settings: &mut Settings, path: &Path) -> Result {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::usage(format!(
            "cannot read the settings file {}: {error}",
            path.display()
        ))
    })?;
    File { path, text: &text }.apply(settings)
}

/// The settings that the file names, and the line of each.
pub(super) fn named(path: &Path) -> Result<Named> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let path = path.display();
        Error::usage(format!("cannot read the settings file {path}: {error}"))
    })?;
    let mut named = Named::new();
    // What is wrong with it, `apply` has said.
    if let Ok(table) = DeTable::parse(&text) {
        name_all("", table.get_ref(), &mut |name, at| {
            let line = 1 + text[..at].matches('\n').count();
            let at = format!("{}:{line}", path.display());
            named.push((name, SettingSource::File, at));
        });
    }
    Ok(named)
}

/// Tells the name of each value in the table, and where it stands.
fn name_all(prefix: &str, table: &DeTable<'_>, tell: &mut impl FnMut(String, usize)) {
    for (name, value) in table {
        let full = format!("{prefix}{}", name.get_ref());
        let array = value.get_ref().as_array();
        let tables = array.map(|items| items.iter().map(|item| item.get_ref().as_table()));
        match (value.get_ref().as_table(), tables) {
            (Some(table), _) => name_all(&format!("{full}."), table, tell),
            (None, Some(tables)) if array.is_some_and(|items| is_tables(items)) => {
                for (index, table) in tables.enumerate() {
                    if let Some(table) = table {
                        name_all(&format!("{full}.{index}."), table, tell);
                    }
                }
            }
            _ => tell(full, name.span().start),
        }
    }
}

fn is_tables(items: &[Spanned<DeValue<'_>>]) -> bool {
    items.first().is_some_and(|item| item.get_ref().is_table())
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn apply(&self, settings: &mut Settings) -> Result {
        let table = DeTable::parse(self.text).map_err(|error| {
            self.error(error.span().map_or(0, |span| span.start), error.message())
        })?;
        for (name, value) in table.get_ref() {
            if name.get_ref() == LISTENERS {
                self.listeners(settings, value)?;
            } else {
                self.set(&mut of_server(settings), name, value, "setting")?;
            }
        }
        Ok(())
    }

    fn listeners(&self, settings: &mut Settings, value: &Spanned<DeValue<'_>>) -> Result {
        let wrong = |at| self.error(at, "listeners are written as [[listeners]] tables");
        let array = value
            .get_ref()
            .as_array()
            .ok_or_else(|| wrong(value.span().start))?;
        for (index, item) in array.iter().enumerate() {
            let table = item
                .get_ref()
                .as_table()
                .ok_or_else(|| wrong(item.span().start))?;
            if index == settings.listeners.len() {
                if !table.keys().any(|name| name.get_ref() == "address") {
                    return Err(self.error(
                        item.span().start,
                        format!("listener {index} has no `address`, and the program gives none"),
                    ));
                }
                settings.listeners.push(Listener::default());
            }
            for (name, value) in table {
                if let (FRAMING, Some(table)) = (&**name.get_ref(), value.get_ref().as_table()) {
                    settings.listeners[index].framing = self.framing(table, value.span().start)?;
                    continue;
                }
                if name.get_ref() == TLS {
                    self.tls(&mut settings.listeners[index], value)?;
                    continue;
                }
                let mut fields = of_listener(&mut settings.listeners[index]);
                self.set(&mut fields, name, value, "setting of a listener")?;
            }
        }
        Ok(())
    }

    /// `framing = { kind = "marker", marker = "END" }`
    fn framing(&self, table: &DeTable<'_>, at: usize) -> Result<Framing> {
        let kind = table
            .iter()
            .find(|(name, _)| name.get_ref() == KIND)
            .and_then(|(_, kind)| Some((kind.get_ref().as_str()?, kind.span().start)));
        let Some((kind, kind_at)) = kind else {
            let message = "a framing has a `kind`: none, marker, lines or length";
            return Err(self.error(at, message));
        };
        let kind = choose(kind).map_err(|wrong| self.error(kind_at, format!("`kind`: {wrong}")))?;
        let mut draft = Draft::default();
        for (name, value) in table.iter().filter(|(name, _)| name.get_ref() != KIND) {
            let mut fields = of_framing(kind, &mut draft);
            self.set(&mut fields, name, value, "setting of this kind of framing")?;
        }
        draft
            .finish(kind)
            .map_err(|wrong| self.error(at, format!("`framing`: {wrong}")))
    }

    /// `[listeners.tls]`, and the `[[listeners.tls.sni]]` in it.
    fn tls(&self, listener: &mut Listener, value: &Spanned<DeValue<'_>>) -> Result {
        let table = value
            .get_ref()
            .as_table()
            .ok_or_else(|| self.error(value.span().start, "TLS is written as [listeners.tls]"))?;
        let tls = listener.tls.get_or_insert_with(Tls::default);
        for (name, value) in table {
            if name.get_ref() == SNI {
                tls.sni = self.certificates(value)?;
            } else {
                self.set(&mut of_tls(tls), name, value, "setting of TLS")?;
            }
        }
        Ok(())
    }

    fn certificates(&self, value: &Spanned<DeValue<'_>>) -> Result<Vec<CertificateFiles>> {
        let wrong = |at| self.error(at, "certificates are written as [[listeners.tls.sni]]");
        let array = value
            .get_ref()
            .as_array()
            .ok_or_else(|| wrong(value.span().start))?;
        let mut certificates = Vec::new();
        for item in array {
            let table = item
                .get_ref()
                .as_table()
                .ok_or_else(|| wrong(item.span().start))?;
            let mut files = CertificateFiles::default();
            for (name, value) in table {
                self.set(
                    &mut of_certificate(&mut files),
                    name,
                    value,
                    "setting of a certificate",
                )?;
            }
            certificates.push(files);
        }
        Ok(certificates)
    }

    fn set(
        &self,
        fields: &mut [Field<'_>],
        name: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        what: &str,
    ) -> Result {
        let Some(field) = fields.iter_mut().find(|field| field.name == name.get_ref()) else {
            let known = fields
                .iter()
                .map(|field| field.name)
                .chain((what == "setting").then_some(LISTENERS));
            let hint = match nearest(name.get_ref(), known) {
                Some(known) => format!(": did you mean `{known}`?"),
                None => String::new(),
            };
            let message = format!("there is no {what} `{}`{hint}", name.get_ref());
            return Err(self.error(name.span().start, message));
        };
        let texts = texts(value.get_ref());
        let given = match &texts {
            Some(texts) => Given::List(texts),
            None => given(value.get_ref()),
        };
        field
            .set(given)
            .map_err(|wrong| self.error(value.span().start, format!("`{}` {wrong}", field.name)))
    }

    /// An error at a byte of the file.
    fn error(&self, at: usize, message: impl std::fmt::Display) -> Error {
        let line = 1 + self
            .text
            .bytes()
            .take(at)
            .filter(|&byte| byte == b'\n')
            .count();
        Error::usage(format!("{}:{line}: {message}", self.path.display()))
    }
}

/// The items of an array that has nothing but texts.
fn texts(value: &DeValue<'_>) -> Option<Vec<String>> {
    let items = value.as_array()?.iter();
    items
        .map(|item| item.get_ref().as_str().map(str::to_owned))
        .collect()
}

fn given<'a>(value: &'a DeValue<'_>) -> Given<'a> {
    match value {
        DeValue::String(text) => Given::Quoted(text),
        DeValue::Integer(number) => Given::Integer(integer(number)),
        DeValue::Boolean(value) => Given::Bool(*value),
        other => Given::Other(other.type_str()),
    }
}

/// What does not fit is out of every range.
fn integer(number: &DeInteger<'_>) -> i128 {
    i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX)
}

const LISTENERS: &str = "listeners";
const FRAMING: &str = "framing";
const KIND: &str = "kind";
const TLS: &str = "tls";
const SNI: &str = "sni";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dispatch, Protocol};

    fn load(settings: &mut Settings, text: &str) -> Result {
        File {
            path: Path::new("echo.toml"),
            text,
        }
        .apply(settings)
    }

    fn error(text: &str) -> String {
        load(&mut Settings::default(), text)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn values_of_every_type_are_taken() {
        let mut settings = Settings::default();
        load(
            &mut settings,
            "name = 'chat'\nworkers = 3\nring_size = 0x2_0000\ndispatch = 'least_busy'\n\
             pid_file = '/run/chat.pid'\n[[listeners]]\naddress = '[::1]:80'\n\
             protocol = 'websocket'\nredeliver = false\n",
        )
        .unwrap();
        assert_eq!((settings.name.as_str(), settings.workers), ("chat", 3));
        assert_eq!(
            (settings.ring_size, settings.dispatch),
            (0x2_0000, Dispatch::LeastBusy)
        );
        assert_eq!(
            settings.pid_file.as_deref(),
            Some(Path::new("/run/chat.pid"))
        );
        assert_eq!(settings.listeners[0].protocol, Protocol::Websocket);
        assert!(!settings.listeners[0].redeliver);
    }

    #[test]
    fn a_listener_of_the_program_keeps_what_the_file_does_not_name() {
        let listener = Listener {
            max_queued: 1 << 20,
            ..Listener::http("a:80")
        };
        let mut settings = Settings {
            listeners: vec![listener],
            ..Settings::default()
        };
        load(
            &mut settings,
            "[[listeners]]\nbacklog = 9\n[[listeners]]\naddress = 'b:1'\n",
        )
        .unwrap();
        let [first, second] = &settings.listeners[..] else {
            panic!()
        };
        assert_eq!(
            (first.address.as_str(), first.protocol),
            ("a:80", Protocol::Http)
        );
        assert_eq!((first.max_queued, first.backlog), (1 << 20, 9));
        assert_eq!(
            (second.address.as_str(), second.protocol),
            ("b:1", Protocol::Tcp)
        );
    }

    #[test]
    fn errors_say_where_what_and_what_was_meant() {
        assert_eq!(
            error("workers = 2\n\nwrokers = 3\n"),
            "echo.toml:3: there is no setting `wrokers`: did you mean `workers`?"
        );
        assert_eq!(
            error("[[listeners]]\naddress = 'a:1'\nbacklogs = 3\n"),
            "echo.toml:3: there is no setting of a listener `backlogs`: did you mean `backlog`?"
        );
        assert_eq!(
            error("[[listener]]\n"),
            "echo.toml:1: there is no setting `listener`: did you mean `listeners`?"
        );
        assert_eq!(
            error("workers = 0"),
            "echo.toml:1: `workers` must be a number from 1 to 1024, not 0"
        );
        assert_eq!(
            error("[[listeners]]\nbacklog = 3"),
            "echo.toml:1: listener 0 has no `address`, and the program gives none"
        );
        assert!(error("workers = \n").starts_with("echo.toml:1: "));
        assert!(error("workers = 99999999999999999999999").contains("1 to 1024"));
    }

    #[test]
    fn framings_are_words_or_tables() {
        use gannet_proto::tcp::LengthPrefix;

        for (text, framing) in [
            ("'none'", Framing::None),
            ("'lines'", Framing::lines()),
            (
                "{ kind = 'lines', strip_cr = false }",
                Framing::Lines { strip_cr: false },
            ),
            (
                r"{ kind = 'marker', marker = '\r\xff', keep = true }",
                Framing::kept_marker(b"\r\xff"),
            ),
            (
                "{ kind = 'length', width = 'varint', offset = 1, keep_header = true }",
                Framing::length(LengthPrefix::varint().offset(1).keep_header()),
            ),
            (
                "{ kind = 'length', width = 2, little_endian = true, header_size = 8, \
                 counts_header = true }",
                Framing::length(
                    LengthPrefix::u16()
                        .little_endian()
                        .header_size(8)
                        .counts_header(),
                ),
            ),
        ] {
            let mut settings = Settings::default();
            let text = format!("[[listeners]]\naddress = 'a:1'\nframing = {text}\n");
            load(&mut settings, &text).unwrap();
            assert_eq!(settings.listeners[0].framing, framing, "{text}");
        }
    }

    #[test]
    fn framings_that_cannot_be_are_refused_where_they_stand() {
        for (text, why) in [
            ("'length'", "or a table such as"),
            ("7", "or a table such as"),
            (
                "{ width = 4 }",
                "has a `kind`: none, marker, lines or length",
            ),
            ("{ kind = 'custom' }", "unknown name `custom`"),
            (
                "{ kind = 'lines', keep = true }",
                "no setting of this kind of framing `keep`",
            ),
            ("{ kind = 'length', widht = 4 }", "did you mean `width`?"),
            (
                "{ kind = 'length', width = 3 }",
                "1, 2, 4, 8 or \"varint\", not 3",
            ),
            ("{ kind = 'marker' }", "1 to 64 bytes, this one has 0"),
            (
                r"{ kind = 'marker', marker = '\q' }",
                "two hexadecimal digits",
            ),
            (
                "{ kind = 'length', width = 4, header_size = 3 }",
                "header of 3 bytes ends before its length field",
            ),
        ] {
            let error = error(&format!(
                "[[listeners]]\naddress = 'a:1'\nframing = {text}\n"
            ));
            assert!(
                error.starts_with("echo.toml:3: ") && error.contains(why),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn tls_is_a_table_of_its_listener() {
        let mut settings = Settings::default();
        load(
            &mut settings,
            "[[listeners]]\naddress = 'a:1'\n[listeners.tls]\ncertificate = 'a.pem'\n\
             key = 'a.key'\nmin_version = '1.3'\nclient_auth = 'optional'\nclient_depth = 1\n\
             [[listeners.tls.sni]]\ncertificate = 'b.pem'\nkey = 'b.key'\n",
        )
        .unwrap();
        let mut tls = Tls::new("a.pem", "a.key").sni("b.pem", "b.key");
        tls.min_version = crate::TlsVersion::Tls13;
        tls.client_auth = crate::ClientAuth::Optional;
        tls.client_depth = 1;
        assert_eq!(settings.listeners[0].tls, Some(tls));

        let with = |text: &str| error(&format!("[[listeners]]\naddress = 'a:1'\n{text}"));
        assert_eq!(
            with("tls.certifcate = 'x'"),
            "echo.toml:3: there is no setting of TLS `certifcate`: did you mean `certificate`?"
        );
        assert!(with("tls = true").contains("[listeners.tls]"));
        assert!(with("tls.sni = 'x'").contains("[[listeners.tls.sni]]"));
        assert!(with("tls.min_version = '1.1'").contains("`1.2` or `1.3`"));
    }

    #[test]
    fn lists_are_arrays_of_texts() {
        let mut settings = Settings::default();
        load(
            &mut settings,
            "[[listeners]]\naddress = 'a:1'\nproxy_protocol = 'required'\n\
             forwarded = 'x-forwarded-for'\ntrusted_proxies = ['10.0.0.1', 'fd00::/8']\n",
        )
        .unwrap();
        let listener = &settings.listeners[0];
        assert_eq!(listener.proxy_protocol, crate::ProxyProtocol::Required);
        assert_eq!(listener.forwarded, crate::Forwarded::XForwardedFor);
        assert_eq!(listener.trusted_proxies, ["10.0.0.1", "fd00::/8"]);

        for value in ["'10.0.0.1'", "[1]", "['a', true]"] {
            let error = error(&format!(
                "[[listeners]]\naddress = 'a:1'\ntrusted_proxies = {value}"
            ));
            assert!(
                error.starts_with("echo.toml:3: `trusted_proxies` must be a list of texts"),
                "{error}"
            );
        }
        let error = error("[[listeners]]\naddress = 'a:1'\nforwarded = 'x-real-ip'");
        assert!(error.contains("x-forwarded-for"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = apply(&mut Settings::default(), Path::new("/no/such.toml")).unwrap_err();
        assert!(error.to_string().contains("/no/such.toml"), "{error}");
        assert!(error.is_usage());
    }
}
