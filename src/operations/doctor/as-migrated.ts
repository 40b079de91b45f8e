/**
 * What the migrations make, as PostgreSQL tells it back, to compare with what is there and to make
 * again what is missing. A test holds this together with a database that was just migrated.
 */

export interface MarkTrigger {
  readonly name: string;
  readonly table: string;
  /** As pg_get_triggerdef has it. */
  readonly definition: string;
}

export const MARK_TRIGGERS: readonly MarkTrigger[] = [
  ...[
    ['inserted', 'INSERT', 'REFERENCING NEW TABLE AS new_rows '],
    ['updated', 'UPDATE', 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows '],
    ['deleted', 'DELETE', 'REFERENCING OLD TABLE AS old_rows '],
    ['truncated', 'TRUNCATE', ''],
  ].map(([name, event, referencing]) => ({
    name: `gift_persons_mark_${name}`,
    table: 'gift_persons',
    definition:
      `CREATE TRIGGER gift_persons_mark_${name} AFTER ${event} ON gift_persons ` +
      `${referencing}FOR EACH STATEMENT EXECUTE FUNCTION mark_changed_assignments()`,
  })),
  {
    name: 'person_occasions_mark_inserted',
    table: 'person_occasions',
    definition:
      'CREATE TRIGGER person_occasions_mark_inserted AFTER INSERT ON person_occasions ' +
      'REFERENCING NEW TABLE AS new_rows ' +
      'FOR EACH STATEMENT EXECUTE FUNCTION mark_new_budgets()',
  },
  {
    name: 'person_occasions_mark_updated',
    table: 'person_occasions',
    definition:
      'CREATE TRIGGER person_occasions_mark_updated AFTER UPDATE ON person_occasions ' +
      'FOR EACH ROW WHEN (old.person_id IS DISTINCT FROM new.person_id ' +
      'OR old.occasion_id IS DISTINCT FROM new.occasion_id ' +
      'OR old.budget_spent IS DISTINCT FROM new.budget_spent ' +
      `AND current_setting('gift_budgets.recalculating'::text, true) IS DISTINCT FROM 'on'::text) ` +
      'EXECUTE FUNCTION mark_changed_budget()',
  },
];

/** The bodies of their functions, by name; `SCHEMA` stands for the schema of the marks. */
export const MARK_FUNCTIONS: Readonly<Record<string, string>> = {
  mark_changed_assignments: `begin
  if tg_op = 'INSERT' then
    insert into SCHEMA.pending_recalculations (person_id, occasion_id)
    select distinct on (person_id, occasion_id) person_id, occasion_id
      from new_rows where person_id is not null and occasion_id is not null;
  elsif tg_op = 'DELETE' then
    insert into SCHEMA.pending_recalculations (person_id, occasion_id)
    select distinct on (person_id, occasion_id) person_id, occasion_id
      from old_rows where person_id is not null and occasion_id is not null;
  elsif tg_op = 'UPDATE' then
    insert into SCHEMA.pending_recalculations (person_id, occasion_id)
    select distinct on (person_id, occasion_id) person_id, occasion_id
      from (select person_id, occasion_id from old_rows
            union all
            select person_id, occasion_id from new_rows) changed
     where person_id is not null and occasion_id is not null;
  else
    insert into SCHEMA.pending_recalculations (everything) values (true);
  end if;
  return null;
end`,
  mark_new_budgets: `begin
  insert into SCHEMA.pending_recalculations (person_id, occasion_id)
  select person_id, occasion_id from new_rows;
  return null;
end`,
  mark_changed_budget: `begin
  insert into SCHEMA.pending_recalculations (person_id, occasion_id)
  values (new.person_id, new.occasion_id);
  if (old.person_id, old.occasion_id) is distinct from (new.person_id, new.occasion_id) then
    insert into SCHEMA.pending_recalculations (person_id, occasion_id)
    values (old.person_id, old.occasion_id);
  end if;
  return null;
end`,
};

/** The indexes as pg_get_indexdef has them; docs/schema.md says what each is for. */
export const INDEXES: readonly string[] = [
  'CREATE UNIQUE INDEX person_occasions_pkey ON person_occasions USING btree (person_id, occasion_id)',
  'CREATE INDEX idx_person_occasion_budget ON person_occasions USING btree (person_id, occasion_id, budget_amount)',
  'CREATE INDEX idx_person_occasion_occasion ON person_occasions USING btree (occasion_id, person_id)',
  'CREATE INDEX idx_gift_person_contribution ON gift_persons USING btree (person_id, occasion_id) INCLUDE (amount)',
  'CREATE INDEX idx_gift_person_gift ON gift_persons USING btree (gift_id)',
  'CREATE INDEX idx_pending_recalculation_pair ON pending_recalculations USING btree (person_id, occasion_id)',
  'CREATE INDEX idx_pending_recalculation_everything ON pending_recalculations USING btree (id) WHERE everything',
  'CREATE UNIQUE INDEX recalculation_failures_pkey ON recalculation_failures USING btree (person_id, occasion_id)',
  'CREATE UNIQUE INDEX idx_budget_sweep_unfinished ON budget_sweeps USING btree ((true)) WHERE finished_at IS NULL',
  'CREATE INDEX idx_budget_sweep_started ON budget_sweeps USING btree (started_at)',
  'CREATE INDEX idx_budget_sweep_finding_sweep ON budget_sweep_findings USING btree (sweep_id, id)',
];

/** The options of the tables whose rows change all the time. */
export const TABLE_OPTIONS: Readonly<Record<string, readonly string[]>> = {
  person_occasions: ['fillfactor=85'],
  pending_recalculations: [
    'autovacuum_vacuum_scale_factor=0',
    'autovacuum_vacuum_threshold=1000',
    'autovacuum_vacuum_insert_scale_factor=0',
    'autovacuum_vacuum_insert_threshold=10000',
    'autovacuum_vacuum_cost_delay=0',
    'vacuum_truncate=off',
  ],
};
