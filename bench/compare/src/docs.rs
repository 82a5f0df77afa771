//! Puts tables and graphs into documentation, between the markers `<!-- compare: NAME -->` and
//! `<!-- /compare -->`.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    graph,
    peers::{self, Peer},
    results::{Found, Results},
    scenario::Scenario,
    statistics::Figures,
    table::{self, Table},
    targets,
};

/// Writes the graphs beside the page, into a directory of its name, and fills in its sections.
pub(crate) fn write(page: &Path, results: &Results) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("read {}", page.display()))?;
    let name = page.file_stem().context("a page without a name")?;
    let graphs = page.with_file_name(name);
    fs::create_dir_all(&graphs)?;
    let directory = name.to_string_lossy();
    let peers = peers::all();
    let text = fill(&text, &mut |section| {
        match section {
            "machine" => return Ok(machine(results)),
            "servers" => return Ok(servers(results)),
            "targets" => return target_table(results),
            _ => {}
        }
        let Ok(scenario) = Scenario::from_str(section, false) else {
            bail!(
                "{} has a section {section:?} that nobody fills",
                page.display()
            );
        };
        if let Some(svg) = graph::scenario(results, scenario) {
            fs::write(graphs.join(format!("{section}.svg")), svg)?;
        }
        Ok(of_scenario(results, scenario, &directory, &peers))
    })?;
    fs::write(page, text).with_context(|| format!("write {}", page.display()))
}

/// The text with each section's content replaced by what `content` says of its name.
fn fill(text: &str, content: &mut dyn FnMut(&str) -> Result<String>) -> Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after
            .split_once(" -->")
            .context("a marker without an end")?;
        let (old, after) = after
            .split_once(END)
            .with_context(|| format!("the section {name} does not end with {END}"))?;
        if old.contains(BEGIN) {
            bail!("the section {name} does not end with {END}");
        }
        filled += &format!(
            "{before}{BEGIN}{name} -->\n\n{}\n\n{END}",
            content(name)?.trim()
        );
        rest = after;
    }
    Ok(filled + rest)
}

fn of_scenario(
    results: &Results,
    scenario: Scenario,
    directory: &str,
    peers: &[Box<dyn Peer>],
) -> String {
    let mut text = scenario.explanation().to_owned() + "\n\n";
    if let Some(table) = table::scenario(results, scenario) {
        let name = scenario.name();
        text += &format!(
            "![{}]({directory}/{name}.svg)\n\n{}\n",
            scenario.title(),
            table.markdown()
        );
    }
    if let Some(note) = table::limited_by_load(results, scenario) {
        text += &format!("{note}\n");
    }
    let can = |name: &str| {
        peers
            .iter()
            .any(|peer| peer.name() == name && peer.can(scenario))
    };
    for line in table::not_measured(results, scenario, &can) {
        text += &format!("Not measured: {line}.\n");
    }
    text
}

fn target_table(results: &Results) -> Result<String> {
    let (table, count) = targets::table(&targets::all()?, results);
    Ok(format!("{count}\n\n{}", table.markdown()))
}

/// What it was measured on, as a sentence for people.
pub(crate) fn machine(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "{}: {} processors ({}), {} GiB of memory, Linux {}, {}; {} s a measurement.",
        results.date,
        machine.processors,
        machine.processor,
        machine.memory_gib,
        machine.kernel,
        machine.rustc,
        results.seconds
    );
    if let Some(Figures { median, max, .. }) = results.stolen() {
        text += &format!(
            " Other guests of the host took {median:.1} % of the processors (median), {max:.1} % at worst."
        );
    }
    if !machine.profile.is_empty() {
        text += &format!(" Built with {}.", machine.profile.join(", "));
    }
    text
}

fn servers(results: &Results) -> String {
    let mut table = Table::new(&["server", "version"]);
    for peer in &results.peers {
        let found = match &peer.found {
            Found::Version(version) => version.clone(),
            Found::Missing(why) => format!("not measured: {why}"),
        };
        table.push(vec![peer.title.clone(), found]);
    }
    table.markdown()
}

const BEGIN: &str = "<!-- compare: ";
const END: &str = "<!-- /compare -->";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_markers_is_replaced() {
        let page = "a\n<!-- compare: tcp -->\nold\n<!-- /compare -->\nb\n";
        let filled = fill(page, &mut |name| Ok(format!("new {name}\n"))).unwrap();
        let new = "a\n<!-- compare: tcp -->\n\nnew tcp\n\n<!-- /compare -->\nb\n";
        assert_eq!(filled, new);
        assert_eq!(fill(new, &mut |_| Ok("new tcp".to_owned())).unwrap(), new);
    }

    #[test]
    fn a_section_without_an_end_is_an_error() {
        let page = "<!-- compare: a -->\n<!-- compare: b -->\n<!-- /compare -->\n";
        assert!(fill(page, &mut |_| Ok(String::new())).is_err());
        assert!(fill("<!-- compare: a -->", &mut |_| Ok(String::new())).is_err());
    }
}
