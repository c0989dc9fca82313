package testnet

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"
)

// buildDir holds the binary that tests build.
var buildDir string

// perCore is how many networks are up at once for each core, where -parallel does not say.
// They wait more than they compute: for elections, leases, and nodes that come back.
const perCore = 2

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", strconv.Itoa(perCore*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	flag.Parse()         // what the command line says goes before
	if testing.Short() { // as under the race detector, where they do compute
		if err := flag.Set("test.parallel", "1"); err != nil {
			panic(err)
		}
	}
	dir, err := os.MkdirTemp("", "crossroads-build-")
	if err != nil {
		panic(err)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}
