//! Indexes and constraints, taken down and put up again by the definitions that the server itself gives of them.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::store::StoreError;

/// An index, or a constraint that has one or refers to another table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Built {
    /// The table that it stands on.
    pub(super) table: String,
    /// Whether it is a foreign key: it goes first and comes last.
    pub(super) refers: bool,
    drop: String,
    make: String,
    /// Of a foreign key: what holds it against the rows that are there. Making it does not.
    validate: Option<String>,
}

impl Built {
    pub(super) async fn make(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        sqlx::raw_sql(AssertSqlSafe(self.make.clone())).execute(connection).await?;
        Ok(())
    }

    /// May be done to several tables side by side.
    pub(super) async fn validate(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let Some(validate) = self.validate.clone() else { return Ok(()) };
        sqlx::raw_sql(AssertSqlSafe(validate)).execute(connection).await?;
        Ok(())
    }
}

/// What is built on these tables, and what refers to them.
pub(super) async fn read(connection: &mut PgConnection, tables: &[&str]) -> Result<Vec<Built>, StoreError> {
    let rows = sqlx::query(
        "WITH t AS MATERIALIZED (SELECT name::regclass AS oid FROM unnest($1::text[]) AS name)
         SELECT conrelid::regclass::text AS on_table, contype = 'f' AS refers,
                format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) AS drop,
                format('ALTER TABLE %s ADD CONSTRAINT %I %s%s', conrelid::regclass, conname, pg_get_constraintdef(oid),
                       CASE WHEN contype = 'f' AND convalidated THEN ' NOT VALID' END) AS make,
                CASE WHEN contype = 'f' AND convalidated
                     THEN format('ALTER TABLE %s VALIDATE CONSTRAINT %I', conrelid::regclass, conname) END AS validate
         FROM pg_constraint
         WHERE contype IN ('p', 'u', 'x', 'f')
           AND (conrelid IN (SELECT oid FROM t) OR contype = 'f' AND confrelid IN (SELECT oid FROM t))
         UNION ALL
         SELECT indrelid::regclass::text, false, format('DROP INDEX %s', indexrelid::regclass),
                pg_get_indexdef(indexrelid), NULL
         FROM pg_index WHERE indrelid IN (SELECT oid FROM t)
           AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = indexrelid AND k.contype IN ('p', 'u', 'x'))
         ORDER BY on_table, make",
    )
    .bind(tables)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Built {
                table: row.try_get("on_table")?,
                refers: row.try_get("refers")?,
                drop: row.try_get("drop")?,
                make: row.try_get("make")?,
                validate: row.try_get("validate")?,
            })
        })
        .collect()
}

/// Takes all of it down, or nothing.
pub(super) async fn take_down(connection: &mut PgConnection, built: &[Built]) -> Result<(), StoreError> {
    let (foreign, own): (Vec<&Built>, Vec<&Built>) = built.iter().partition(|built| built.refers);
    let drops: Vec<&str> = foreign.into_iter().chain(own).map(|built| built.drop.as_str()).collect();
    // Statements that are sent together are one transaction.
    sqlx::raw_sql(AssertSqlSafe(drops.join("; "))).execute(connection).await?;
    Ok(())
}
