// Package stage is what a booting guest tells its host: one event when a stage
// starts and one when it ends, each a single line on the serial console.
//
// The line is the mark "@mica " and a JSON object. Consoles are shared with the
// kernel and the operating system, so a reader finds the mark anywhere in a
// line, ignores what follows the object, and skips lines that do not decode;
// a writer starts and ends each event with a line break. Unknown fields are
// ignored, so either side may be newer.
//
// The package is on the ground floor because both sides, which otherwise never
// import each other, need the same words.
package stage
