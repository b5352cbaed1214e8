//! The documents: versions with dates of force, all of which stay readable.

use tolom::config::{Document, Terms};

use super::look::{LANGUAGES, look};
use crate::intake::app::App;

#[tokio::test]
async fn what_is_built_in_is_readable_in_every_language() {
    let app = App::start().await;
    for lang in LANGUAGES {
        let list = look(&app, &format!("/{lang}/documents/")).await;
        for document in ["user-agreement", "privacy-policy", "manual"] {
            let path = format!("/{lang}/documents/{document}/2026-01-01");
            assert!(list.html.contains(&format!("href=\"{path}\"")), "{path}");
            let page = look(&app, &path).await;
            assert_eq!(page.status, 200, "{path}");
            assert!(page.html.contains("01.01.2026") && page.html.contains("<h2>"), "{path}");
        }
    }
}

#[tokio::test]
async fn an_older_version_stays_readable_and_names_the_one_in_force() {
    let folder = std::env::temp_dir().join(format!("tolom-documents-{}", uuid::Uuid::new_v4()));
    for (document, version) in [("user-agreement", "1"), ("user-agreement", "2"), ("rules", "1")] {
        std::fs::create_dir_all(folder.join(document)).unwrap();
        for lang in LANGUAGES {
            let text = format!("# {document} {version} {lang}\n\nText.\n");
            std::fs::write(folder.join(document).join(format!("{version}.{lang}.md")), text).unwrap();
        }
    }
    let app = App::with(|config| {
        let terms = |version: &str, from: &str| Terms { version: version.into(), in_force_from: from.into() };
        config.terms = vec![terms("1", "2020-01-01"), terms("2", "2021-01-01")];
        config.documents =
            vec![Document { document: "rules".into(), version: "1".into(), in_force_from: "2020-01-01".into() }];
        config.site.documents_dir = folder.display().to_string();
    })
    .await;
    std::fs::remove_dir_all(&folder).unwrap();
    let old = look(&app, "/en/documents/user-agreement/1").await;
    assert!(old.html.contains("user-agreement 1 en") && old.html.contains("href=\"/en/documents/user-agreement/2\""));
    assert!(!look(&app, "/en/documents/user-agreement/2").await.html.contains("not the version in force"));
    assert_eq!(look(&app, "/ky/documents/rules/1").await.first("h1"), "rules 1 ky");
    assert_eq!(look(&app, "/en/documents/user-agreement/3").await.status, 404);
}
