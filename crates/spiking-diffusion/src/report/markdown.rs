//! A page as Markdown.

use std::fmt::Write;

use super::page::{Block, Page};

/// Pictures and files are links into the run's folder.
pub(super) fn render(page: &Page) -> String {
    let mut text = format!("# {}\n", page.title);
    for section in &page.sections {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n## {}\n", section.title);
        section.blocks.iter().for_each(|block| text.push_str(&format!("\n{}\n", render_block(block))));
    }
    text
}

fn render_block(block: &Block) -> String {
    match block {
        Block::Text(text) => text.clone(),
        Block::Warning(text) => format!("**{text}**"),
        Block::Numbers(rows) => {
            let rows: Vec<Vec<String>> = rows.iter().map(|row| row.to_vec()).collect();
            table(&["metric", "value"], &rows)
        }
        Block::Table { head, rows } => table(head, rows),
        Block::Code(code) => format!("```sh\n{code}\n```"),
        Block::Picture { file, name, caption } => format!("{caption}\n\n![{name}]({file})"),
        Block::File { file, caption } => format!("[{file}]({file}): {caption}."),
    }
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rules = vec!["---"; head.len()].join(" | ");
    let rows = rows.iter().map(|row| format!("\n| {} |", row.join(" | ")));
    format!("| {} |\n| {rules} |{}", head.join(" | "), rows.collect::<String>())
}
