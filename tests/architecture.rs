//! That docs/architecture.md tells the truth: its arrows are the crates' dependencies, its walks name functions that exist.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

type Arrows = BTreeMap<String, BTreeSet<String>>;

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md")).expect("a page")
}

/// The text under a heading, until the next one of its kind.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page.find(heading).unwrap_or_else(|| panic!("no {heading}")) + heading.len();
    let end = page[start..].find("\n## ").map_or(page.len(), |at| start + at);
    &page[start..end]
}

/// `name -> name, name` in the section's first code block.
fn drawn(page: &str) -> Arrows {
    let block = section(page, "\n## Crates\n").split("```").nth(1).expect("a code block");
    let arrow = |line: &str| {
        let (from, to) = line.split_once("->").unwrap_or_else(|| panic!("no arrow: {line}"));
        let to = to.split(',').map(|name| name.trim().to_owned()).filter(|name| name != "nothing");
        (from.trim().to_owned(), to.collect())
    };
    block.lines().filter(|line| !line.trim().is_empty()).map(arrow).collect()
}

/// Dependencies of the workspace's packages on each other, those of tests and build scripts left out.
fn declared() -> Arrows {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let members: BTreeSet<String> = packages.iter().map(name).collect();
    let arrows = |package: &Value| {
        let dependencies = package["dependencies"].as_array().expect("dependencies").iter();
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null()).map(name);
        (name(package), normal.filter(|name| members.contains(name)).collect())
    };
    packages.iter().map(arrows).collect()
}

#[test]
fn the_arrows_are_the_dependencies_of_the_crates() {
    assert_eq!(drawn(&page()), declared());
}

#[test]
fn nothing_points_back() {
    let mut left = declared();
    while !left.is_empty() {
        let free: Vec<String> = left.iter().filter(|(_, to)| to.is_empty()).map(|(from, _)| from.clone()).collect();
        assert!(!free.is_empty(), "a cycle among {:?}", left.keys());
        left.retain(|from, _| !free.contains(from));
        left.values_mut().for_each(|to| to.retain(|name| !free.contains(name)));
    }
}

#[test]
fn each_function_of_the_walks_is_in_its_file() {
    let page = page();
    let walks = section(&page, "\n## Five walks\n");
    assert_eq!(walks.matches("\n### ").count(), 5);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut checked = 0;
    for span in walks.split('`').skip(1).step_by(2) {
        let Some((path, functions)) = span.split_once(".rs:") else { continue };
        let path = format!("{path}.rs");
        let source = std::fs::read_to_string(root.join(&path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        for function in functions.split(',').map(str::trim) {
            let found = ["(", "<"].iter().any(|end| source.contains(&format!("fn {function}{end}")));
            assert!(found, "{path} has no function {function}");
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} functions");
}
