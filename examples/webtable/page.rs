//! A page: its row key, its language, and whom it links to.

use std::sync::LazyLock;

use scraper::{Html, Selector};

/// The longest row key a Bigtable takes, bytes.
const KEY_BYTES_MAX: usize = 4096;

/// What a page says about itself and others.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) language: Option<String>,
    /// Row keys of other pages, each with the text of the link.
    pub(crate) links: Vec<(String, String)>,
}

impl Page {
    pub(crate) fn parse(key: &str, html: &str) -> Self {
        static ROOT: LazyLock<Selector> = LazyLock::new(|| Selector::parse("html[lang]").expect("it is CSS"));
        static LINK: LazyLock<Selector> = LazyLock::new(|| Selector::parse("a[href]").expect("it is CSS"));
        let document = Html::parse_document(html);
        let language = document.select(&ROOT).find_map(|root| root.attr("lang")).map(str::to_owned);
        let links = document.select(&LINK).filter_map(|link| {
            let target = resolve(key, link.attr("href")?)?;
            let text = link.text().flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
            (target != key && target.len() <= KEY_BYTES_MAX).then_some((target, text))
        });
        let links = links.collect();
        Self { language, links }
    }
}

/// `doc.rust-lang.org` and `std/vec/` make `org.rust-lang.doc/std/vec/`, so that
/// the pages of a domain stand together.
pub(crate) fn row_key(host: &str, path: &str) -> String {
    let mut labels: Vec<&str> = host.split('.').collect();
    labels.reverse();
    format!("{}/{}", labels.join("."), path.trim_start_matches('/'))
}

/// The row key of what `href` means on the page `base`; none for what is no page.
fn resolve(base: &str, href: &str) -> Option<String> {
    let href = href.split(['#', '?']).next().filter(|href| !href.is_empty())?;
    let (site, path) = base.split_once('/')?;
    let key = if let Some(elsewhere) = href.strip_prefix("https://").or_else(|| href.strip_prefix("http://"))
    {
        let (host, path) = elsewhere.split_once('/').unwrap_or((elsewhere, ""));
        row_key(&host.to_ascii_lowercase(), path)
    } else if href.contains(':') {
        return None;
    } else if let Some(path) = href.strip_prefix('/') {
        format!("{site}/{path}")
    } else {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{site}/{}", join(directory, href))
    };
    Some(if key.ends_with('/') { key + "index.html" } else { key })
}

/// `a/b` and `../c/d.html` make `a/c/d.html`.
fn join(directory: &str, href: &str) -> String {
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in href.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
