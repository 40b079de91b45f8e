export interface WantedColumn {
  readonly types: RegExp;
  /** The types in words. */
  readonly needed: string;
  /** Whether `up` adds it where it is missing. */
  readonly isAdded?: boolean;
  readonly notNull?: boolean;
  /** Whether the recalculation writes it. */
  readonly isWritten?: boolean;
}

export interface WantedTable {
  readonly columns: Readonly<Record<string, WantedColumn>>;
  readonly key?: readonly string[];
  /** Whether it gets triggers and indexes of ours in any case. */
  readonly isChanged?: boolean;
  /** The tables that have a foreign key to it where we create them. */
  readonly referencedBy: readonly string[];
}

const ID: WantedColumn = {
  types: /^(smallint|integer|bigint)$/,
  needed: 'smallint, integer or bigint',
};
const TEXT: WantedColumn = {
  types: /^(text|citext|character varying|character)(\(\d+\))?$/,
  needed: 'text or varchar',
  isAdded: true,
};
const MONEY: WantedColumn = {
  types: /^numeric\(([1-9]\d),2\)$/,
  needed: 'numeric(10,2), or with more digits before the point',
  isAdded: true,
};

/** All that is asked of a table that others made; what `up` adds is asked for where it is there already. */
export const WANTED: Readonly<Record<string, WantedTable>> = {
  persons: {
    columns: { id: ID, name: TEXT },
    key: ['id'],
    referencedBy: ['person_occasions', 'gift_persons'],
  },
  occasions: {
    columns: {
      id: ID,
      name: TEXT,
      date: {
        types: /^(date|timestamp.*)$/,
        needed: 'date or timestamp',
        isAdded: true,
      },
    },
    key: ['id'],
    referencedBy: ['person_occasions'],
  },
  gifts: { columns: { id: ID, name: TEXT }, key: ['id'], referencedBy: ['gift_persons'] },
  person_occasions: {
    columns: {
      person_id: { ...ID, notNull: true },
      occasion_id: { ...ID, notNull: true },
      budget_amount: MONEY,
      budget_spent: { ...MONEY, notNull: true, isWritten: true },
      budget_currency: { ...TEXT, notNull: true },
      budget_notes: TEXT,
    },
    key: ['occasion_id', 'person_id'],
    isChanged: true,
    referencedBy: ['gift_persons'],
  },
  gift_persons: {
    columns: {
      gift_id: ID,
      person_id: ID,
      occasion_id: { ...ID, isAdded: true },
      amount: { types: /^numeric(\(.*\))?$/, needed: 'numeric', isAdded: true },
    },
    isChanged: true,
    referencedBy: [],
  },
};

/** Names that nobody else may have used, by kind as the catalog has them. */
export const OUR_RELATIONS = [
  'pending_recalculations',
  'recalculation_failures',
  'budget_sweeps',
  'budget_sweep_findings',
  'budget_contributions',
  'budget_status',
];
export const OUR_FUNCTIONS = [
  'mark_changed_assignments',
  'mark_new_budgets',
  'mark_changed_budget',
  'mark_budget',
  'mark_budgets',
  'mark_all_budgets',
];
export const OUR_TRIGGERS = [
  'gift_persons_mark_inserted',
  'gift_persons_mark_updated',
  'gift_persons_mark_deleted',
  'gift_persons_mark_truncated',
  'person_occasions_mark_inserted',
  'person_occasions_mark_updated',
];
/** Of an index that is there under such a name, the table and the definition must be these. */
export const OUR_INDEXES: Readonly<Record<string, string>> = {
  idx_person_occasion_budget:
    'person_occasions USING btree (person_id, occasion_id, budget_amount)',
  idx_person_occasion_occasion: 'person_occasions USING btree (occasion_id, person_id)',
  idx_gift_person_gift: 'gift_persons USING btree (gift_id)',
  idx_gift_person_contribution:
    'gift_persons USING btree (person_id, occasion_id) INCLUDE (amount)',
};
