//! Completions of shells and the manual page, from the same definition as the command line. In: the definition. Out: texts. Left to others: installing them.

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;

/// The script of a shell.
pub(crate) fn completions(mut command: Command, shell: Shell) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut command, "kubectl-qscaler", &mut out);
    out
}

/// The manual page: every command of it in one page.
///
/// # Errors
/// It cannot be rendered.
pub(crate) fn page(command: &Command) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut out).context("cannot write the manual page")?;
    for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
        let name = format!("{} {}", command.get_name(), sub.get_name());
        let mut part = Vec::new();
        let man = clap_mangen::Man::new(sub.clone());
        man.render_description_section(&mut part)?;
        man.render_options_section(&mut part)?;
        // Below one heading each.
        let text = String::from_utf8_lossy(&part).replace(".SH DESCRIPTION", "").replace(".SH OPTIONS", "");
        out.extend(format!(".SH \"{}\"\n", name.to_uppercase()).bytes());
        out.extend(text.bytes().skip_while(|b| *b == b'\n'));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cli;
    use clap::CommandFactory;
    use std::fmt::Write;

    /// The reference page for the documentation.
    fn reference(command: &Command) -> String {
        let mut out = "# Command line\n\nThe program `kubectl-qscaler` on PATH is the command `kubectl qscaler`.\n".to_owned();
        let mut all = vec![("kubectl qscaler".to_owned(), command.clone())];
        all.extend(command.get_subcommands().filter(|c| c.get_name() != "help").map(|c| (format!("kubectl qscaler {}", c.get_name()), c.clone())));
        for (name, one) in all {
            let _ = write!(out, "\n## {name}\n```\n{}\n```\n", one.bin_name(name.clone()).term_width(140).render_long_help().to_string().trim_end());
        }
        out
    }

    #[test]
    fn the_manual_and_the_completions_know_every_command() {
        let command = Cli::command();
        let page = String::from_utf8(page(&command).expect("it renders")).expect("a text");
        let script = String::from_utf8(completions(command.clone(), Shell::Bash)).expect("a text");
        for sub in command.get_subcommands() {
            let name = sub.get_name();
            assert!(name == "help" || page.contains(&format!("QSCALER {}", name.to_uppercase())), "{name} is not in the manual");
            assert!(script.contains(name), "{name} is not in bash's completions");
        }
    }

    #[test]
    fn the_reference_page_is_what_the_program_says() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/cli.md");
        let page = reference(&Cli::command());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &page).expect("the page can be written");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("UPDATE_GOLDEN=1 writes it"), page, "UPDATE_GOLDEN=1 writes it");
    }
}
