//! A page as one self-contained file.

use std::fmt::Write;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::page::{Block, Page};
use crate::error::{Error, Result};

const STYLE: &str = include_str!("style.css");

/// Pictures and files of the folder go inside; those that are missing are left out.
pub(super) fn render(page: &Page, folder: &Path) -> Result<String> {
    let mut body = String::new();
    for section in &page.sections {
        // Writing to a string cannot fail.
        let _ = write!(body, "<section>\n<h2>{}</h2>\n", escape(section.title));
        for block in &section.blocks {
            body.push_str(&render_block(block, folder)?);
        }
        body.push_str("</section>\n");
    }
    let title = escape(&page.title);
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <main>\n<h1>{title}</h1>\n{body}</main>\n</body>\n</html>\n"
    ))
}

fn render_block(block: &Block, folder: &Path) -> Result<String> {
    Ok(match block {
        Block::Text(text) => format!("<p>{}</p>\n", inline(text)),
        Block::Warning(text) => format!("<p class=\"warning\">{}</p>\n", inline(text)),
        Block::Numbers(rows) => numbers(rows),
        Block::Table { head, rows } => table(head, rows),
        Block::Code(code) => format!("<pre>{}</pre>\n", escape(code)),
        Block::Picture { file, name, caption } => match read(&folder.join(file))? {
            Some(bytes) => picture(file, name, caption, &bytes),
            None => String::new(),
        },
        Block::File { file, caption } => match read(&folder.join(file))? {
            Some(bytes) => format!(
                "<details><summary>{file}: {caption}</summary><pre>{}</pre></details>\n",
                escape(&String::from_utf8_lossy(&bytes))
            ),
            None => String::new(),
        },
    })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path)(e)),
    }
}

fn numbers(rows: &[[String; 2]]) -> String {
    let card = |[name, value]: &[String; 2]| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value))
    };
    format!("<dl>\n{}</dl>\n", rows.iter().map(card).collect::<String>())
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        cells.map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect::<String>()
    };
    let head = cells("th", &mut head.iter().copied());
    let row = |row: &Vec<String>| format!("<tr>{}</tr>\n", cells("td", &mut row.iter().map(String::as_str)));
    let rows: String = rows.iter().map(row).collect();
    format!(
        "<div class=\"wide\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}

fn picture(file: &str, name: &str, caption: &str, bytes: &[u8]) -> String {
    let kind = if file.ends_with(".gif") { "gif" } else { "png" };
    // Pixels of generated images stay sharp; plots are smoothed.
    let class =
        if ["samples", "unmasking", "reconstructions", "classes", "clusters", "neighbours"].contains(&name) {
            "pixels"
        } else {
            "plot"
        };
    format!(
        "<figure class=\"{class}\"><img alt=\"{}\" src=\"data:image/{kind};base64,{}\"><figcaption>{}</figcaption></figure>\n",
        escape(name),
        STANDARD.encode(bytes),
        escape(caption)
    )
}

/// Text with `code`.
fn inline(text: &str) -> String {
    let pieces = text.split('`').enumerate();
    let mark = |(i, piece): (usize, &str)| {
        if i % 2 == 1 { format!("<code>{}</code>", escape(piece)) } else { escape(piece) }
    };
    pieces.map(mark).collect()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::page::Section;
    use super::*;

    #[test]
    fn whatever_a_text_holds_stays_text() {
        let script = "<script>alert(\"&\")</script>".to_owned();
        let blocks = vec![
            Block::Text(format!("{script} `a < b`")),
            Block::Numbers(vec![[script.clone(), script.clone()]]),
            Block::Table { head: vec!["a"], rows: vec![vec![script.clone()]] },
            Block::Code(script.clone()),
        ];
        let page = Page { title: script, sections: vec![Section { title: "s", blocks }] };
        let html = render(&page, Path::new(".")).unwrap();
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(html.matches("&lt;script&gt;alert(&quot;&amp;&quot;)&lt;/script&gt;").count(), 7);
        assert!(html.contains("<code>a &lt; b</code>"));
    }

    #[test]
    fn missing_pictures_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let block = Block::Picture { file: "samples.png", name: "samples", caption: "c" };
        assert_eq!(render_block(&block, folder.path()).unwrap(), "");
        std::fs::write(folder.path().join("samples.png"), [1, 2, 3]).unwrap();
        assert!(render_block(&block, folder.path()).unwrap().contains("src=\"data:image/png;base64,AQID\""));
    }
}
