// Package sqlite is the one place that talks to the SQL engine, which is
// modernc.org/sqlite: a translation of SQLite to Go, so that nothing needs cgo.
// It offers what catalogues, histories and reflogs take: to open a file that
// nobody changes, to make a new one, and prepared statements over both.
//
// It goes by the engine's driver without the pool of database/sql: one
// connection for a file and statements that stay prepared are what a machine
// with little memory can afford.
//
// Files are treated as hostile as far as the engine allows: read-only,
// immutable, no functions of the schema, no memory mapping, no pages that lead in
// a circle, and errors that the file's content is to blame for wrap
// cvmfs.ErrMalformed.
package sqlite
