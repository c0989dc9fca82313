package sql

import (
	"context"
	dbsql "database/sql"
	"sync"
)

// prepared is a statement that is prepared once the database can be reached. The pool
// prepares it again on every new connection. It is safe for concurrent use.
type prepared struct {
	query string // with the placeholders of the driver

	mu   sync.Mutex
	stmt *dbsql.Stmt // nil until the database was reached once; guarded by mu
}

func (p *prepared) on(ctx context.Context, db *dbsql.DB) (*dbsql.Stmt, error) {
	p.mu.Lock()
	stmt := p.stmt
	p.mu.Unlock()
	if stmt != nil {
		return stmt, nil
	}
	// Not under the lock: a database that hangs must not hold up Close.
	stmt, err := db.PrepareContext(ctx, p.query)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stmt != nil {
		_ = stmt.Close() // another question was faster
	} else {
		p.stmt = stmt
	}
	return p.stmt, nil
}

func (p *prepared) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stmt != nil {
		_ = p.stmt.Close()
		p.stmt = nil
	}
}
