//! Holds a changed manifest against the one that was read: text is edited, and no layout that we did not think of may
//! leave something else behind.

use std::ptr;

use super::yaml::{Node, Value};
use super::{Workload, find_workloads, sidecar, yaml};

/// Whether `text` is `before` but for the sidecar, which is in each of `workloads`' lists of that name once; in none if
/// it is to be nowhere.
pub(super) fn is_as_meant(
    before: &[Node],
    workloads: &[Workload<'_>],
    text: &str,
    only: &[String],
    list: Option<&str>,
) -> bool {
    let Ok(after) = yaml::parse(text) else {
        return false;
    };
    let mut changed = Vec::new();
    for document in &after {
        find_workloads(document, only, &mut changed);
    }
    // These are left as they are.
    let is_meant = |it: &Workload<'_>| list.is_none() || !it.is_hook;
    let specs: Vec<&Node> = workloads
        .iter()
        .filter(|it| is_meant(it))
        .filter_map(|it| it.spec)
        .collect();
    let is_in_place = |spec: &Node| {
        OURS.iter().all(|(own, name)| {
            let items = spec.get(own).map_or(&[][..], Node::items);
            let found = items.iter().filter(|item| is_called(item, name)).count();
            let is_wanted = list.is_some_and(|list| *own == list || *own == "volumes");
            found == usize::from(is_wanted)
        })
    };
    before.len() == after.len()
        && changed.len() == workloads.len()
        && changed
            .iter()
            .filter(|it| is_meant(it))
            .filter_map(|it| it.spec)
            .all(is_in_place)
        && before
            .iter()
            .zip(&after)
            .all(|(before, after)| is_same(before, after, &specs))
}

/// The lists that may be changed, and whose item in each is ours.
pub(super) const OURS: [(&str, &str); 3] = [
    ("initContainers", sidecar::NAME),
    ("containers", sidecar::NAME),
    ("volumes", sidecar::NO_TOKEN),
];

fn is_called(item: &Node, name: &str) -> bool {
    item.get("name").and_then(Node::text) == Some(name)
}

/// Whether both say the same, but for what is ours in the pods' `specs`.
fn is_same(before: &Node, after: &Node, specs: &[&Node]) -> bool {
    match (&before.value, &after.value) {
        (Value::Scalar(a, is_plain), Value::Scalar(b, is_still_plain)) => {
            a == b && is_plain == is_still_plain
        }
        (Value::Alias, Value::Alias) => true,
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b, specs))
        }
        (Value::Map(a), Value::Map(b)) => {
            if specs.iter().any(|spec| ptr::eq(*spec, before)) {
                return is_same_pod(before, after);
            }
            let entries = a.iter().zip(b);
            a.len() == b.len()
                && entries.into_iter().all(|((key, value), (other, changed))| {
                    is_same(key, other, specs) && is_same(value, changed, specs)
                })
        }
        _ => false,
    }
}

fn is_same_pod(before: &Node, after: &Node) -> bool {
    // A list that is empty, null or not there is the same to Kubernetes.
    let others = |spec: &Node, list: &str, name: &str| -> Vec<Node> {
        let items = spec.get(list).map_or(&[][..], Node::items);
        let others = items.iter().filter(|item| !is_called(item, name));
        others.cloned().collect()
    };
    let rest = |spec: &Node| -> Vec<(Node, Node)> {
        let Value::Map(entries) = &spec.value else {
            return Vec::new();
        };
        let is_other =
            |(key, _): &&(Node, Node)| !OURS.iter().any(|(list, _)| key.text() == Some(*list));
        entries.iter().filter(is_other).cloned().collect()
    };
    let (rest_before, rest_after) = (rest(before), rest(after));
    rest_before.len() == rest_after.len()
        && rest_before
            .iter()
            .zip(&rest_after)
            .all(|((key, value), (other, changed))| {
                is_same(key, other, &[]) && is_same(value, changed, &[])
            })
        && OURS.iter().all(|(list, name)| {
            let (a, b) = (others(before, list, name), others(after, list, name));
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| is_same(a, b, &[]))
        })
}
