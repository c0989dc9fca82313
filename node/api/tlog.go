package api

import (
	"errors"
	"strings"

	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
)

// immutable is for what never has other bytes under the same name.
const immutable = "public, max-age=31536000, immutable"

// checkpoint gives the last checkpoint of the node's segment. It is public: it tells
// how many entries there are, and nothing of them.
func (s *Server) checkpoint(*request) (response, error) {
	return document{media: mediaNote, body: s.cfg.Tree.Checkpoint()}, nil
}

// tile gives hashes of the tree. A full tile never changes; one that is not full
// yields to a wider one, so nobody need keep it for long.
func (s *Server) tile(q *request) (response, error) {
	path := "tile/" + q.PathValue("level") + "/" + q.PathValue("index")
	hashes, err := s.cfg.Tree.Tile(path)
	if errors.Is(err, tlog.ErrNotInTree) {
		return nil, problem(CodeNotFound, "", "The tree has no such tile yet: see GET /tlog/checkpoint for its size.")
	}
	if err != nil {
		return nil, err
	}
	d := document{media: mediaBytes, body: hashes, cache: immutable}
	if strings.Contains(path, ".p/") {
		d.cache = "public, max-age=60"
	}
	return d, nil
}
