//! A tree as text: names with branches on the left, columns beside them. Machines of
//! which there are many and that are equally well share a line.

use std::fmt::Write as _;

use super::tree::{Condition, Node};

/// How to draw.
#[derive(Debug, Clone)]
pub struct Options {
    /// Every condition, not only those that are not well.
    pub all_conditions: bool,
    /// Every machine, even if many are alike.
    pub all_machines: bool,
    /// For ages.
    pub now: jiff::Timestamp,
}

/// From how many machines on equal ones share a line.
const SHARED_FROM: usize = 4;
const HEADERS: [&str; 7] = ["NAME", "READY", "PHASE", "REPLICAS", "AGE", "REASON", "MESSAGE"];

/// Draws the tree with a line for headers; no line has trailing blanks.
pub fn draw(root: &Node, options: &Options) -> String {
    let mut rows = vec![HEADERS.map(ToOwned::to_owned)];
    push(root, String::new(), String::new(), options, &mut rows);
    let widths: Vec<usize> = (0..HEADERS.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a String does not fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn push(node: &Node, first: String, rest: String, options: &Options, rows: &mut Vec<[String; 7]>) {
    rows.push(row(node, format!("{first}{}/{}", node.kind, node.name), options));
    let shown: Vec<&Condition> = node
        .conditions
        .iter()
        .filter(|condition| condition.name != "Ready" && (options.all_conditions || condition.is_bad()))
        .collect();
    let groups = group(&node.children, options);
    for (index, condition) in shown.iter().enumerate() {
        let last = groups.is_empty() && index + 1 == shown.len();
        rows.push([
            format!("{rest}{}{}", if last { "└─" } else { "├─" }, condition.name),
            condition.status.clone(),
            String::new(),
            String::new(),
            String::new(),
            condition.reason.clone(),
            one_line(&condition.message),
        ]);
    }
    for (index, members) in groups.iter().enumerate() {
        let last = index + 1 == groups.len();
        let (branch, below) = if last { ("└─", "  ") } else { ("├─", "│ ") };
        match members.as_slice() {
            [child] => push(
                child,
                format!("{rest}{branch}"),
                format!("{rest}{below}"),
                options,
                rows,
            ),
            [child, ..] => {
                let title = format!("{rest}{branch}{} {}s ({}, …)", members.len(), child.kind, child.name);
                rows.push(row(child, title, options));
            }
            [] => {}
        }
    }
}

fn row(node: &Node, title: String, options: &Options) -> [String; 7] {
    let ready = node.condition("Ready");
    let bad = ready.filter(|condition| condition.is_bad());
    [
        title,
        ready.map(|condition| condition.status.clone()).unwrap_or_default(),
        if node.deleting {
            "Deleting".to_owned()
        } else {
            node.phase.clone().unwrap_or_default()
        },
        node.replicas
            .map(|(ready, wanted)| format!("{ready}/{wanted}"))
            .unwrap_or_default(),
        node.created
            .map(|created| age(created, options.now))
            .unwrap_or_default(),
        bad.map(|condition| condition.reason.clone()).unwrap_or_default(),
        bad.map(|condition| one_line(&condition.message)).unwrap_or_default(),
    ]
}

/// Children in groups that share a line: leaves of one kind in the same state.
fn group<'a>(children: &'a [Node], options: &Options) -> Vec<Vec<&'a Node>> {
    let state = |node: &Node| (node.phase.clone(), node.deleting, node.conditions.clone());
    let mut groups: Vec<Vec<&Node>> = Vec::new();
    for child in children {
        let like = groups.iter_mut().find(|group| {
            group.iter().all(|member| {
                member.kind == child.kind
                    && member.children.is_empty()
                    && child.children.is_empty()
                    && state(member) == state(child)
            })
        });
        match like {
            Some(group) => group.push(child),
            None => groups.push(vec![child]),
        }
    }
    groups
        .into_iter()
        .flat_map(|group| {
            if options.all_machines || group.len() < SHARED_FROM {
                group.into_iter().map(|child| vec![child]).collect()
            } else {
                vec![group]
            }
        })
        .collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// As kubectl writes ages: two units at the most.
pub fn age(created: jiff::Timestamp, now: jiff::Timestamp) -> String {
    let seconds = now.duration_since(created).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if seconds % 60 > 0 => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 > 0 => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        172_800..691_200 if hours % 24 > 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(kind: &str, name: &str, ready: &str, children: Vec<Node>) -> Node {
        Node {
            kind: kind.into(),
            name: name.into(),
            phase: Some("Running".into()),
            replicas: (kind == "MachineSet").then_some((1, 2)),
            created: Some(jiff::Timestamp::UNIX_EPOCH),
            deleting: false,
            conditions: vec![Condition {
                name: "Ready".into(),
                status: ready.into(),
                reason: "Why".into(),
                message: "because\nof that".into(),
            }],
            children,
        }
    }

    fn options() -> Options {
        Options {
            all_conditions: false,
            all_machines: false,
            now: jiff::Timestamp::from_second(150).expect("a time"),
        }
    }

    #[test]
    fn branches_and_columns_line_up() {
        let machines = vec![
            node("Machine", "a", "True", vec![]),
            node("Machine", "b", "False", vec![]),
        ];
        let root = node(
            "Cluster",
            "demo",
            "True",
            vec![node("MachineSet", "set", "True", machines)],
        );
        let expected = "\
NAME              READY  PHASE    REPLICAS  AGE    REASON  MESSAGE
Cluster/demo      True   Running            2m30s
└─MachineSet/set  True   Running  1/2       2m30s
  ├─Machine/a     True   Running            2m30s
  └─Machine/b     False  Running            2m30s  Why     because of that
";
        assert_eq!(draw(&root, &options()), expected);
    }

    #[test]
    fn equal_machines_share_a_line_unless_all_are_asked_for() {
        let machines: Vec<Node> = (0..9)
            .map(|i| node("Machine", &format!("m{i}"), "True", vec![]))
            .collect();
        let root = node("MachineSet", "set", "True", machines);
        let shared = draw(&root, &options());
        assert!(shared.contains("└─9 Machines (m0, …)"), "{shared}");
        assert_eq!(shared.lines().count(), 3);
        let all = draw(
            &root,
            &Options {
                all_machines: true,
                ..options()
            },
        );
        assert_eq!(all.lines().count(), 11);
    }

    #[test]
    fn ages_are_written_as_kubectl_does() {
        let age = |seconds: i64| {
            age(
                jiff::Timestamp::UNIX_EPOCH,
                jiff::Timestamp::from_second(seconds).expect("a time"),
            )
        };
        let ages: Vec<String> = [5, 119, 125, 600, 3600, 10_860, 90_000, 180_000, 8_640_000]
            .into_iter()
            .map(age)
            .collect();
        assert_eq!(
            ages,
            ["5s", "119s", "2m5s", "10m", "60m", "3h1m", "25h", "2d2h", "100d"]
        );
    }
}
