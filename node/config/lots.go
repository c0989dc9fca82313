package config

import (
	"fmt"
	"time"
	_ "time/tzdata" // the image has none

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Lots say how files of many subjects are worked on. Interactive traffic goes first
// whatever stands here.
type Lots struct {
	// Window is when this institution's own lots run and it answers those of others, as
	// 20:00-06:00, by the clock of Zone. Empty: always.
	Window string `yaml:"window,omitempty"`
	// Zone is a time zone, as Europe/Brussels. Empty: UTC.
	Zone string `yaml:"zone,omitempty"`
	// MaxLines is how many lines a file may have.
	MaxLines int64 `yaml:"max_lines,omitempty"`
	// MaxOpen is how many lots an application may have that it has not acknowledged.
	MaxOpen int `yaml:"max_open,omitempty"`
	// ChunkLines is how many lines are asked about at once, AtOnce how many such chunks are
	// under way beside each other.
	ChunkLines int `yaml:"chunk_lines,omitempty"`
	AtOnce     int `yaml:"at_once,omitempty"`
	// SubjectsPerSecond is how many subjects of one institution's lots this node answers, as
	// supplier, and decides on, as clearing peer. 0: as many as it can.
	SubjectsPerSecond float64 `yaml:"subjects_per_second,omitempty"`
	// Keep is how long results are kept that nobody acknowledges.
	Keep time.Duration `yaml:"keep,omitempty"`
	// Drops are folders from which files are taken.
	Drops []Drop `yaml:"drops,omitempty"`
}

// Drop is a folder whose files are lots: each new file in it that does not end in .part is
// handed in, moved to taken, and its result written to results.
type Drop struct {
	Dir string `yaml:"dir"`
	// Application and User are in whose name it is asked; the application need have no token.
	Application string       `yaml:"application"`
	User        names.UserID `yaml:"user"`
	AuthLevel   uint32       `yaml:"auth_level,omitempty"`
	// What is asked of every subject. Days is how far back it is asked about; 0: today alone.
	Purpose names.Purpose     `yaml:"purpose"`
	Dataset names.DatasetID   `yaml:"dataset"`
	Fields  []names.FieldName `yaml:"fields,omitempty"`
	Days    int               `yaml:"days,omitempty"`
	Scheme  string            `yaml:"scheme,omitempty"` // empty: ssin
	// Format is csv, jsonl or fixed; Number and Reference say where they stand, Length how
	// long a fixed record is (0: a line), Separator what separates the columns of CSV.
	Format    string `yaml:"format,omitempty"` // empty: csv
	Number    string `yaml:"number,omitempty"`
	Reference string `yaml:"reference,omitempty"`
	Separator string `yaml:"separator,omitempty"`
	Length    int    `yaml:"length,omitempty"`
	// Results is the form of the results: csv or jsonl. Empty: csv.
	Results string `yaml:"results,omitempty"`
}

// Bounds of the settings.
const (
	maxLotLines  = 50_000_000
	maxLotChunk  = 4096
	maxLotKeep   = 366 * 24 * time.Hour
	maxLotAtOnce = 64
)

func (l Lots) check(v *checker) {
	within(v, "lots.max_lines", l.MaxLines, 1, int64(maxLotLines))
	within(v, "lots.max_open", l.MaxOpen, 1, 10_000)
	within(v, "lots.chunk_lines", l.ChunkLines, 1, maxLotChunk)
	within(v, "lots.at_once", l.AtOnce, 1, maxLotAtOnce)
	within(v, "lots.keep", l.Keep, time.Hour, maxLotKeep)
	within(v, "lots.subjects_per_second", l.SubjectsPerSecond, 0.0, 1e7)
	if _, err := time.LoadLocation(l.Zone); err != nil || l.Zone == "Local" {
		v.add("lots.zone", "is no time zone", "write one as Europe/Brussels, or leave it out for UTC")
	}
	if l.Window != "" {
		if _, err := time.Parse("15:04-15:04", l.Window); err != nil && len(l.Window) != len("20:00-06:00") {
			v.add("lots.window", "is no part of the day", "write it as 20:00-06:00")
		}
	}
	for i, d := range l.Drops {
		d.check(v, fmt.Sprintf("lots.drops[%d]", i))
	}
}

func (d Drop) check(v *checker, key string) {
	v.text(key+".dir", d.Dir, "name the folder that files are dropped in")
	v.name(key+".application", names.NodeName(d.Application).Validate(), "use lower case letters, digits and dashes")
	v.name(key+".user", d.User.Validate(), "name who answers for what is dropped there")
	v.name(key+".purpose", d.Purpose.Validate(), "use a purpose as an authorization names it")
	v.name(key+".dataset", d.Dataset.Validate(), "name it with its version, as wages-quarterly/v1")
	for _, f := range d.Fields {
		v.name(key+".fields", f.Validate(), "use fields as the dataset's schema names them")
	}
	v.oneOf(key+".format", d.Format, "", "csv", "jsonl", "fixed")
	v.oneOf(key+".results", d.Results, "", "csv", "jsonl")
	within(v, key+".days", d.Days, 0, 366*30)
	if len(d.Separator) > 1 {
		v.add(key+".separator", "is more than one character", "write one ASCII character")
	}
}
