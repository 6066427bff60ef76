//! Prints the tree of a session: `cargo run --example tree -- <address of the session bus> [application]`.

use std::time::Instant;

use accessibility::{Accessibility, Error, Query};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let desktop = Accessibility::connect(&arguments.next().unwrap_or_default()).await?;
    let started = Instant::now();
    let tree = desktop.tree(&Query { application: arguments.next(), ..Query::default() }).await?;
    let took = started.elapsed();
    for node in &tree.nodes {
        let indent = "  ".repeat(node.depth);
        let bounds = node.bounds.map(|at| format!(" {}x{}+{}+{}", at.width, at.height, at.x, at.y)).unwrap_or_default();
        let text = node.text.as_ref().map(|text| format!(" text {text:?}")).unwrap_or_default();
        let (role, name, states) = (&node.role, &node.name, node.states.join(" "));
        println!("{indent}{} {role} {name:?}{bounds}{text} [{states}] {:?}", node.id, node.actions);
    }
    println!("{} nodes in {took:?}; cut {:?}; silent {:?}", tree.nodes.len(), tree.cuts, tree.silent);
    Ok(())
}
