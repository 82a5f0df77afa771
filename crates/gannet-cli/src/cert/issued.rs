//! The record of the certificates that were made: `issued.txt`, a line for each, its serial number in
//! hexadecimal digits and its name.
//!
//! A certificate is recorded before it is written. So there is none that revocation does not know of,
//! but those of a directory from before there was a record: of these the newest is known by its file.

use gannet::Result;
use rcgen::SerialNumber;

use super::{
    files::{Directory, Lock},
    make,
};

/// Records the certificate of this name that is about to be written; before it, the one that is there.
pub(super) fn record(directory: &Directory, _lock: &Lock, name: &str, certificate: &str) -> Result {
    let mut text = read(directory)?;
    let known = of(directory, &text, name)?;
    // If what lies there cannot be read, a new one is all the more welcome.
    let before = of_file(directory, name).and_then(Result::ok);
    let file = format!("{name}.pem");
    let made = make::serial_of(certificate).map_err(|what| directory.bad(&file, &what))?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for serial in before.iter().chain([&made]) {
        if known.contains(serial) {
            continue;
        }
        text.push_str(&format!("{} {name}\n", make::hex(serial.as_ref())));
    }
    directory.write(FILE, &text)
}

/// All that are known of this name: those of the record, and that of the file. There may be none.
pub(super) fn all(directory: &Directory, name: &str) -> Result<Vec<SerialNumber>> {
    let mut serials = of(directory, &read(directory)?, name)?;
    match of_file(directory, name) {
        Some(Ok(serial)) if !serials.contains(&serial) => serials.push(serial),
        // It is the newest of the record, or none of ours.
        Some(Err(error)) if serials.is_empty() => return Err(error),
        _ => {}
    }
    Ok(serials)
}

fn of_file(directory: &Directory, name: &str) -> Option<Result<SerialNumber>> {
    let file = format!("{name}.pem");
    directory.path(&file).exists().then(|| {
        make::serial_of(&directory.read(&file)?).map_err(|what| directory.bad(&file, &what))
    })
}

fn of(directory: &Directory, text: &str, name: &str) -> Result<Vec<SerialNumber>> {
    let mut serials = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let parsed = line.split_once(' ').and_then(|(serial, of)| {
            let serial = make::parse_serial(serial)?;
            Some((serial, of))
        });
        let Some((serial, of)) = parsed else {
            let what = format!("line {} is no serial number and name: {line:?}", index + 1);
            return Err(directory.bad(FILE, &what));
        };
        if of == name && !serials.contains(&serial) {
            serials.push(serial);
        }
    }
    Ok(serials)
}

fn read(directory: &Directory) -> Result<String> {
    match directory.path(FILE).exists() {
        true => directory.read(FILE),
        false => Ok(String::new()),
    }
}

const FILE: &str = "issued.txt";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_record_is_said_and_kept() {
        let home = tempfile::tempdir().unwrap();
        let directory = Directory::new(home.path());
        assert!(all(&directory, "ann").unwrap().is_empty());
        directory.write(FILE, "0a ann\n0b anna\n0c ann").unwrap();
        let serials = all(&directory, "ann").unwrap();
        let serials: Vec<_> = serials.iter().map(|it| make::hex(it.as_ref())).collect();
        assert_eq!(serials, ["0a", "0c"]);
        for bad in ["0a", "xyz ann", "0a ann\n\n", "a ann"] {
            directory.write(FILE, bad).unwrap();
            let error = all(&directory, "ann").unwrap_err();
            assert!(error.is_usage() && error.to_string().contains("issued.txt: line"));
        }
    }
}
