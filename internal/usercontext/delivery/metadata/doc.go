// Package metadata is the metadata service of a cloud, on the host's side: an
// HTTP handler from which machines fetch their context. It speaks as EC2 (IMDS
// version 1 and 2, which serves CloudStack's clients too), OpenStack, Google, Azure
// and NoCloud do.
//
// A machine sees its own data and nothing else. Who asks is decided by what a
// guest cannot choose: the listener it came in by, or its address and, where
// known, the hardware address behind it; for NoCloud, by a secret in the path.
// Never by a header or a query. To anybody else every path is missing, in the
// same words.
//
// Quirks that clients depend on:
//   - A failure is a real status and Content-Type text/html; amiconfig knows no
//     other. A success is never text/html.
//   - Nothing is redirected: µCernVM does not follow. Repeated slashes and a slash
//     at the end are taken as they come, for amiconfig asks for //user-data.
//   - cloud-init walks every entry of meta-data, so each that is listed answers.
//   - cloud-init asks ten times for NoCloud's vendor-data where it is missing, so
//     there it is empty; it takes the keys of Google's metadata only under the name
//     of its default user or cloudinit; its CloudStack source fails where meta-data
//     has no availability-zone.
//   - A family that is not served is absent: an answer under /computeMetadata/ makes
//     µCernVM believe it is at Google.
//
// Left out: Azure's wire server, CloudStack's password service, and falling
// silent after the first boot.
//
// The paths follow the documents of the clouds and their readers: cloud-init
// (cloudinit/sources), cernvm-micro (scripts.d/06context), amiconfig
// (hepix/commands/amiconfig.sh).
package metadata
