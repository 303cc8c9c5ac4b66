package client_test

import (
	"context"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/publish"
)

// A repository is published, opened by one who has its public key and the URL of
// a server, and read as a file system of package io/fs.
func Example() {
	ctx := context.Background()
	work, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(work)
	in := func(name string) string { return filepath.Join(work, name) }
	if err := os.MkdirAll(in("tree/doc"), 0o755); err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(in("tree/doc/README"), []byte("read me first\n"), 0o644); err != nil {
		log.Fatal(err)
	}
	const name = "sw.example.org"
	if err := publish.Create(ctx, publish.CreateOptions{Storage: in("srv"), Name: name, Keys: in("keys")}); err != nil {
		log.Fatal(err)
	}
	if _, err := publish.Publish(ctx, publish.Options{Source: in("tree"), Storage: in("srv"), Name: name, Keys: in("keys")}); err != nil {
		log.Fatal(err)
	}

	pem, err := os.ReadFile(in("keys/" + name + ".pub"))
	if err != nil {
		log.Fatal(err)
	}
	keys, err := cvmfs.ParsePublicKeys(pem)
	if err != nil {
		log.Fatal(err)
	}
	r, err := client.Open(ctx, client.Options{
		Name:       name,
		Servers:    []string{"file://" + in("srv/"+name)}, // or http://HOST/cvmfs/NAME
		MasterKeys: keys,
		CacheDir:   in("cache"),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	fmt.Println("revision", r.Revision())
	err = fs.WalkDir(r.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		fmt.Println(path)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	text, err := fs.ReadFile(r.FS(), "doc/README")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", text)
	// Output:
	// revision 1
	// .
	// doc
	// doc/README
	// read me first
}
