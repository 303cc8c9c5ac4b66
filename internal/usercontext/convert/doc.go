// Package convert makes contexts and turns them from one form into another:
// sections, MIME, cloud-config, context.sh, parts as files, and a sealed form that
// only a password opens.
//
// Nothing is dropped in silence. What the other form cannot express comes back as
// a list of [Unmapped], and the command that converts then exits with the code for
// partly done.
//
// It is for the host: the guest does not link it.
//
// Hazards: what comes out has the same secrets in it as what went in. Files made
// from it are for the owner's eyes only (mode 0600).
package convert
