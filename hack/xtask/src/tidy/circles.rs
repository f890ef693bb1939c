//! Circles between the modules of a crate. In: the files of a crate, from its root. Out: each circle, with the line that makes each of its arrows. It
//! leaves to others what may be a circle all the same.
//!
//! An **arrow** goes from a file to the file that defines what it names by a path that begins with `crate` or `super`, in a `use` or anywhere else, outside
//! of comments, strings and what is compiled for tests alone. A name that a module only passes on (`use`, `pub use`) is followed to where it is defined.
//! Between a module and one that lies in it there is no arrow, in either direction: a folder and what is in it are one room, whose door is its `mod.rs`.
//! What no path names cannot be seen here: a method that another file adds to a type, and what a macro writes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::source::{code, is_word, line_of, shipped};

/// A module's path within its crate; the root's is empty.
type Name = Vec<String>;

/// One file of a crate.
#[derive(Debug, Default)]
struct Module {
    file: String,
    /// Its shipped code.
    code: String,
    /// Names that it takes from elsewhere, and from where, as paths from the crate's root.
    imports: BTreeMap<String, Name>,
    /// Modules of which it takes everything.
    globs: Vec<Name>,
    /// Paths from the crate's root that it names, and in which line.
    paths: Vec<(Name, usize)>,
}

/// All modules of a crate.
#[derive(Debug, Default)]
pub(super) struct Crate {
    modules: BTreeMap<Name, Module>,
}

/// An arrow: from a file to a file, and where it is written.
pub(super) type Arrows = BTreeMap<(String, String), usize>;

impl Crate {
    /// Reads a crate from its root file, following its `mod` declarations but those for tests. `read` gives a file's text.
    pub(super) fn read(root: &Path, read: &impl Fn(&Path) -> Option<String>) -> Self {
        let mut this = Self::default();
        // A file of its own name may have the next level beside it (`mod.rs`, the root) or in a folder of its name.
        let mut left: Vec<(Name, PathBuf, PathBuf)> = vec![(Name::new(), root.to_owned(), root.parent().unwrap_or(root).to_owned())];
        while let Some((name, file, folder)) = left.pop() {
            let Some(text) = read(&file) else { continue };
            let shipped = shipped(&code(&text));
            for (child, at) in declared(&shipped) {
                let beside = explicit(&text, line_of(&shipped, at)).map(|path| file.parent().unwrap_or(&file).join(path));
                let flat = beside.unwrap_or_else(|| folder.join(format!("{child}.rs")));
                let (path, below) =
                    if read(&flat).is_some() { (flat, folder.join(&child)) } else { (folder.join(&child).join("mod.rs"), folder.join(&child)) };
                left.push(([name.clone(), vec![child]].concat(), path, below));
            }
            this.modules.insert(name, Module { file: file.display().to_string(), code: shipped, ..Module::default() });
        }
        let names: Vec<Name> = this.modules.keys().cloned().collect();
        for name in names {
            let mut uses = Uses { at: name.clone(), ..Uses::default() };
            uses.of_text(&this.modules[&name].code);
            if let Some(module) = this.modules.get_mut(&name) {
                (module.imports, module.globs, module.paths) = (uses.imports, uses.globs, uses.paths);
            }
        }
        this
    }

    /// Every arrow of the crate.
    pub(super) fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (name, module) in &self.modules {
            for (path, line) in &module.paths {
                let Some(to) = self.home(path, 0).filter(|to| !to.starts_with(name) && !name.starts_with(to)) else { continue };
                arrows.entry((module.file.clone(), self.modules[&to].file.clone())).or_insert(*line);
            }
        }
        arrows
    }

    /// The module that defines what a path names.
    fn home(&self, path: &[String], depth: usize) -> Option<Name> {
        let inside = (0..=path.len()).rev().find(|n| self.modules.contains_key(&path[..*n]))?;
        let (name, rest) = path.split_at(inside);
        let module = &self.modules[name];
        let Some(item) = rest.first().filter(|_| depth < 8) else { return Some(name.to_vec()) };
        if item != "*" && !defines(&module.code, item) {
            if let Some(from) = module.imports.get(item) {
                return self.home(&[from, &rest[1..]].concat(), depth + 1);
            }
            // What comes by a star has no name here: it is where it is defined.
            for glob in &module.globs {
                if let Some(home) = self.modules.get(glob)
                    && (defines(&home.code, item) || home.imports.contains_key(item))
                {
                    return self.home(&[glob.as_slice(), rest].concat(), depth + 1);
                }
            }
        }
        Some(name.to_vec())
    }
}

/// Whether a text has an item of this name.
fn defines(code: &str, item: &str) -> bool {
    ["fn", "struct", "enum", "trait", "type", "const", "static", "union", "mod", "macro_rules!"].iter().any(|kind| {
        code.match_indices(&format!("{kind} {item}"))
            .any(|(at, found)| !code[..at].chars().next_back().is_some_and(is_word) && !code[at + found.len()..].chars().next().is_some_and(is_word))
    })
}

/// Names of the modules that a text declares without a body, and where.
fn declared(code: &str) -> Vec<(String, usize)> {
    let found = code.match_indices("mod ").filter(|(at, _)| !code[..*at].chars().next_back().is_some_and(is_word));
    let named = found.filter_map(|(at, _)| {
        let (name, _) = code[at + 4..].split_once(';')?;
        name.chars().all(is_word).then(|| (name.to_owned(), at))
    });
    named.collect()
}

/// The file that an attribute above a declaration names.
fn explicit(text: &str, line: usize) -> Option<&str> {
    text.lines().nth(line.checked_sub(2)?)?.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]")
}

/// What a file names by paths.
#[derive(Debug, Default)]
struct Uses {
    at: Name,
    imports: BTreeMap<String, Name>,
    globs: Vec<Name>,
    paths: Vec<(Name, usize)>,
}

impl Uses {
    fn of_text(&mut self, code: &str) {
        let mut rest = 0;
        while let Some(word) = next_word(code, rest) {
            let (start, end) = word;
            rest = end;
            let line = line_of(code, start);
            match &code[start..end] {
                "use" => {
                    let stop = code[end..].find(';').map_or(code.len(), |n| end + n);
                    self.tree(code[end..stop].trim(), &[], line);
                    rest = stop;
                }
                "crate" | "super" if code[end..].starts_with("::") => {
                    let stop = code[start..].find(|c| !is_word(c) && c != ':').map_or(code.len(), |n| start + n);
                    self.path(&segments(code[start..stop].trim_end_matches(':')), line);
                    rest = stop;
                }
                _ => {}
            }
        }
    }

    /// One tree of a `use`, behind the segments before it.
    fn tree(&mut self, tree: &str, before: &[String], line: usize) {
        let tree = tree.trim();
        if let Some(open) = tree.find('{') {
            let before = [before, &segments(tree[..open].trim_end().trim_end_matches("::"))].concat();
            for part in split(tree[open + 1..].trim_end().trim_end_matches('}')) {
                self.tree(part, &before, line);
            }
            return;
        }
        let (path, name) = tree.split_once(" as ").map_or((tree, None), |(path, name)| (path, Some(name.trim())));
        let mut path = [before, &segments(path)].concat();
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        let Some(whole) = self.path(&path, line) else { return };
        match whole.last().map(String::as_str) {
            Some("*") => self.globs.push(whole[..whole.len() - 1].to_vec()),
            Some(last) => {
                self.imports.insert(name.unwrap_or(last).to_owned(), whole);
            }
            None => {}
        }
    }

    /// Notes a path; returns it from the crate's root. One that begins with another word is of a child or of another crate.
    fn path(&mut self, path: &[String], line: usize) -> Option<Name> {
        let mut whole: Name = match path.first()?.as_str() {
            "crate" => Name::new(),
            _ => self.at.clone(),
        };
        for segment in path {
            match segment.as_str() {
                "crate" | "self" => {}
                "super" => _ = whole.pop(),
                _ => whole.push(segment.clone()),
            }
        }
        self.paths.push((whole.clone(), line));
        Some(whole)
    }
}

fn segments(path: &str) -> Vec<String> {
    path.split("::").map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
}

/// The parts of a list, by the commas that stand in no inner list.
fn split(list: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0_usize, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[from..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn next_word(code: &str, from: usize) -> Option<(usize, usize)> {
    let start = from + code[from..].find(is_word)?;
    let end = code[start..].find(|c| !is_word(c)).map_or(code.len(), |n| start + n);
    Some((start, end))
}

/// The circles: sets of files of which each reaches every other, and the arrows within each.
pub(super) fn circles(arrows: &Arrows) -> Vec<Vec<(String, String, usize)>> {
    let mut reached: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
    for (from, _) in arrows.keys() {
        let mut left = vec![from];
        while let Some(file) = left.pop() {
            for ((_, to), _) in arrows.iter().filter(|((other, _), _)| other == file) {
                if reached.entry(from).or_default().insert(to) {
                    left.push(to);
                }
            }
        }
    }
    let both = |a: &String, b: &String| reached.get(a).is_some_and(|r| r.contains(b)) && reached.get(b).is_some_and(|r| r.contains(a));
    let mut circles: BTreeMap<&String, Vec<(String, String, usize)>> = BTreeMap::new();
    for ((from, to), line) in arrows.iter().filter(|((from, to), _)| both(from, to)) {
        // The circle is called after the first of its files.
        let first = reached.keys().find(|other| both(other, from)).copied().unwrap_or(from);
        circles.entry(first).or_default().push((from.clone(), to.clone(), *line));
    }
    circles.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<Vec<(String, String, usize)>> {
        let files: BTreeMap<PathBuf, String> = files.iter().map(|(path, text)| (path.into(), (*text).to_owned())).collect();
        circles(&Crate::read(Path::new("src/lib.rs"), &|path| files.get(path).cloned()).arrows())
    }

    const LIB: (&str, &str) = ("src/lib.rs", "mod a;\nmod b;\npub use a::A;\n");

    #[test]
    fn two_files_that_name_each_other_are_a_circle_and_the_lines_are_told() {
        let circles =
            found(&[LIB, ("src/a.rs", "//! A.\nuse crate::b::{B, C};\npub struct A;\n"), ("src/b.rs", "use std::fmt;\nfn f() { super::a::g() }\n")]);
        let expected = vec![("src/a.rs".to_owned(), "src/b.rs".to_owned(), 2), ("src/b.rs".to_owned(), "src/a.rs".to_owned(), 2)];
        assert_eq!(circles, [expected]);
    }

    #[test]
    fn a_name_that_the_root_passes_on_leads_to_where_it_is_defined() {
        let circles = found(&[LIB, ("src/a.rs", "use crate::b::B;\npub struct A;"), ("src/b.rs", "use crate::A;\npub struct B;")]);
        assert_eq!(circles.len(), 1, "{circles:?}");
        let files = [("src/lib.rs", "mod a;\nmod b;\npub use a::*;\n"), ("src/a.rs", "use crate::b;\npub struct A;"), ("src/b.rs", "use crate::A;")];
        assert_eq!(found(&files).len(), 1);
    }

    #[test]
    fn a_longer_circle_through_folders_is_found() {
        let circles = found(&[
            ("src/a/mod.rs", "mod inner;\npub struct A;"),
            ("src/a/inner.rs", "use crate::b::deep::D;"),
            ("src/b.rs", "pub mod deep;\nuse crate::a::inner;"),
            ("src/b/deep.rs", "use crate::c::C;"),
            ("src/lib.rs", "mod a; mod b; mod c;"),
            ("src/c.rs", "use crate::{a::{inner::{self, I}}, b};"),
        ]);
        let files: BTreeSet<&str> = circles.iter().flatten().map(|(from, _, _)| from.as_str()).collect();
        assert_eq!((circles.len(), files.len()), (1, 4), "{circles:?}");
    }

    #[test]
    fn parents_tests_comments_and_words_are_no_arrows() {
        let circles = found(&[
            LIB,
            ("src/a.rs", "mod inner;\nuse crate::b::B;\npub struct A;\nuse inner::I;"),
            ("src/a/inner.rs", "use super::A;\nuse crate::a::X;"),
            ("src/b.rs", "// use crate::a::A;\nconst T: &str = \"crate::a::A\";\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n"),
        ]);
        assert_eq!(circles, Vec::<Vec<_>>::new());
    }
}
