//! What a transaction writes, in one statement: every table's rows are a part of it.
//!
//! A payer waits for each round trip, and each costs the processor more than a row does. The parts see the tables as they
//! were before the statement, and none sees what another one writes (PostgreSQL manual, 7.8.4): no two of them may touch
//! the same row, nor may one count on another's.

use sqlx::{Encode, PgConnection, Postgres, QueryBuilder, Row, Type, query_builder::Separated};

use super::StoreError;

/// Rows for one or more tables, written together.
pub(super) struct Writes {
    statement: QueryBuilder<Postgres>,
    parts: usize,
    /// Guarded writes that must all hold.
    guarded: Option<(&'static str, usize)>,
}

/// The columns of a part's rows, an array each.
pub(super) struct Columns<'a>(Separated<'a, Postgres, &'static str>);

impl Columns<'_> {
    /// Adds a column.
    pub(super) fn add<'t, T>(&mut self, values: impl IntoIterator<Item = T>) -> &mut Self
    where
        Vec<T>: Encode<'t, Postgres> + Type<Postgres>,
    {
        self.0.push_bind(values.into_iter().collect::<Vec<T>>());
        self
    }
}

impl Writes {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { statement: QueryBuilder::new("WITH "), parts: 0, guarded: None }
    }

    /// Adds a part: the statement `before unnest(columns) after`. Its name says what it has done.
    pub(super) fn add(
        &mut self,
        name: &'static str,
        before: &'static str,
        columns: impl FnOnce(&mut Columns<'_>),
        after: &'static str,
    ) {
        let separator = if self.parts == 0 { "" } else { ", " };
        self.parts += 1;
        self.statement.push(separator).push(name).push(" AS (").push(before).push(" unnest(");
        columns(&mut Columns(self.statement.separated(", ")));
        self.statement.push(") ").push(after).push(")");
    }

    /// The part of this name returns a row for each row that it wrote, and `count` of them must be written.
    pub(super) fn guard(&mut self, name: &'static str, count: usize) {
        self.guarded = Some((name, count));
    }

    /// Writes everything, or nothing: a guard that does not hold is an error, and the transaction is to be given up.
    pub(super) async fn execute(mut self, transaction: &mut PgConnection) -> Result<(), StoreError> {
        if self.parts == 0 {
            return Ok(());
        }
        let (name, expected) = self.guarded.unzip();
        match name {
            Some(name) => self.statement.push(" SELECT count(*) FROM ").push(name),
            None => self.statement.push(" SELECT 0::bigint"),
        };
        let written: i64 = self.statement.build().fetch_one(transaction).await?.try_get(0)?;
        match expected {
            Some(expected) if i64::try_from(expected) != Ok(written) => {
                Err(StoreError::Unreadable(format!("{written} of {expected} guarded writes held")))
            }
            Some(_) | None => Ok(()),
        }
    }
}
