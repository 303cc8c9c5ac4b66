package publish_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/micavm/mica/cvmfs/publish"
)

// A tree becomes the first revision of a new repository, a changed one the
// second, and the whole is checked.
func Example() {
	ctx := context.Background()
	work, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(work)
	tree, storage, keys := filepath.Join(work, "tree"), filepath.Join(work, "srv"), filepath.Join(work, "keys")
	const name = "sw.example.org"
	if err := os.Mkdir(tree, 0o755); err != nil {
		log.Fatal(err)
	}
	if err := publish.Create(ctx, publish.CreateOptions{Storage: storage, Name: name, Keys: keys}); err != nil {
		log.Fatal(err)
	}
	for _, text := range []string{"one\n", "two\n"} {
		if err := os.WriteFile(filepath.Join(tree, "file"), []byte(text), 0o644); err != nil {
			log.Fatal(err)
		}
		done, err := publish.Publish(ctx, publish.Options{Source: tree, Storage: storage, Name: name, Keys: keys})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("revision %d: %d added, %d changed\n", done.Revision, done.Added, done.Changed)
	}
	report, err := publish.Check(ctx, publish.CheckOptions{Storage: storage, Name: name, Data: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("problems:", len(report.Problems))
	// Output:
	// revision 1: 1 added, 1 changed
	// revision 2: 0 added, 1 changed
	// problems: 0
}
