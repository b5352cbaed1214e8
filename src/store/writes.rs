//! What a transaction writes, in one statement: every table's rows are a part of it.
//!
//! A payer waits for each round trip, and each costs the processor more than a row does. The parts see the tables as they
//! were before the statement, and none sees what another one writes (PostgreSQL manual, 7.8.4): no two of them may touch
//! the same row, nor may one count on another's.

use sqlx::{Encode, PgExecutor, Postgres, QueryBuilder, Type, postgres::PgRow, query_builder::Separated};

use super::StoreError;

/// Rows for one or more tables, written together.
pub(super) struct Writes {
    statement: QueryBuilder<Postgres>,
    parts: usize,
    guards: Vec<(&'static str, Expected)>,
    otherwise: &'static str,
}

/// How many rows a guarded part must return.
enum Expected {
    Count(usize),
    Query(&'static str),
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

/// How often what was read without locks is read anew.
const ROUNDS: usize = 4;

/// Repeats work that reads, decides and writes without locks when somebody was faster. Who loses again and again is told
/// that it may be tried later. The work is told how often that has happened.
pub(super) async fn until_won<T, F>(work: impl Fn(usize) -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    for round in 0..ROUNDS - 1 {
        match work(round).await {
            Err(error) if error.is_lost_race() => {}
            done => return done,
        }
    }
    work(ROUNDS - 1).await
}

impl Writes {
    /// Nothing yet, for a caller that holds the locks: a guard that does not hold is a fault of ours, and trying again
    /// helps nobody (SQLSTATE P0001, [`StoreError::Refused`]).
    pub(super) fn locked() -> Self {
        Self::otherwise("P0001")
    }

    /// Nothing yet, for a caller that has read without locks: where a guard does not hold, somebody was faster, and the
    /// caller is to read anew (SQLSTATE 40001, [`StoreError::Unavailable`]).
    pub(super) fn unlocked() -> Self {
        Self::otherwise("40001")
    }

    fn otherwise(otherwise: &'static str) -> Self {
        Self { statement: QueryBuilder::new("WITH "), parts: 0, guards: Vec::new(), otherwise }
    }

    /// Adds a part: the statement `before unnest(columns) after`. Its name says what it has done.
    pub(super) fn add(
        &mut self,
        name: &'static str,
        before: &'static str,
        columns: impl FnOnce(&mut Columns<'_>),
        after: &'static str,
    ) {
        self.begin(name).push(before).push(" unnest(");
        columns(&mut Columns(self.statement.separated(", ")));
        self.statement.push(") ").push(after).push(")");
    }

    /// Adds a part that has its rows from the others.
    pub(super) fn then(&mut self, name: &'static str, part: &'static str) {
        self.begin(name).push(part).push(")");
    }

    fn begin(&mut self, name: &'static str) -> &mut QueryBuilder<Postgres> {
        let separator = if self.parts == 0 { "" } else { ", " };
        self.parts += 1;
        self.statement.push(separator).push(name).push(" AS (")
    }

    /// The part of this name returns a row for each row that it wrote, and there must be so many.
    pub(super) fn guard(&mut self, name: &'static str, count: usize) {
        self.guards.push((name, Expected::Count(count)));
    }

    /// The same, with a query that counts what there must be.
    pub(super) fn guard_by(&mut self, name: &'static str, count: &'static str) {
        self.guards.push((name, Expected::Query(count)));
    }

    /// Writes everything, or nothing: then a guard did not hold, or the database cannot.
    pub(super) async fn execute(self, db: impl PgExecutor<'_>) -> Result<(), StoreError> {
        if self.parts > 0 {
            self.returning("SELECT", db).await?;
        }
        Ok(())
    }

    /// The same, and returns the rows of a query over the parts.
    pub(super) async fn returning(
        mut self,
        query: &'static str,
        db: impl PgExecutor<'_>,
    ) -> Result<Vec<PgRow>, StoreError> {
        self.statement.push(" ").push(query);
        for (index, (name, expected)) in self.guards.iter().enumerate() {
            let (word, statement) = (if index == 0 { " WHERE" } else { " AND" }, &mut self.statement);
            statement.push(word).push(" (SELECT must_hold((SELECT count(*) FROM ").push(name).push("), ");
            match expected {
                Expected::Count(count) => statement.push_bind(i64::try_from(*count).unwrap_or(i64::MAX)),
                Expected::Query(query) => statement.push("(").push(query).push(")"),
            };
            statement.push(", ").push_bind(self.otherwise).push("))");
        }
        Ok(self.statement.build().fetch_all(db).await?)
    }
}
