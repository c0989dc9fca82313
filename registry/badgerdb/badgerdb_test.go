package badgerdb

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

func TestKeptEncryptedAndReopened(t *testing.T) {
	dir, key := t.TempDir(), bytes.Repeat([]byte{7}, KeySize)
	secret := []byte("a value that must not lie in clear on the disk")
	db, err := Open(Config{Dir: dir, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *badger.Txn) error { return tx.Set([]byte("k"), secret) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	assertNotOnDisk(t, dir, secret)

	if db, err := Open(Config{Dir: dir, Key: bytes.Repeat([]byte{8}, KeySize)}); err == nil {
		_ = db.Close()
		t.Fatal("opened with the wrong key")
	}
	if _, err := Open(Config{Dir: dir, Key: []byte("short")}); err == nil {
		t.Fatal("opened with a short key")
	}
	db, err = Open(Config{Dir: dir, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *badger.Txn) error {
		item, err := tx.Get([]byte("k"))
		if err != nil {
			return err
		}
		got, err := item.ValueCopy(nil)
		if !bytes.Equal(got, secret) {
			t.Errorf("read %q", got)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func assertNotOnDisk(t *testing.T, dir string, secret []byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in %s: %v", dir, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, secret) {
			t.Errorf("%s holds the value in clear", filepath.Base(f))
		}
	}
}
