import type { Queryable } from '../database.ts';
import type { Pair } from '../events/contract.ts';
import type { GiftLine } from './lines.ts';

/** What an import made. */
export interface Imported {
  readonly assignments: number;
  readonly persons: number;
  readonly occasions: number;
  readonly gifts: number;
  readonly budgets: number;
}

/** Creates the temporary table that the lines are gathered in; gone with the transaction. */
export async function createImportTable(client: Queryable): Promise<void> {
  await client.query(
    `create temporary table imported_lines (
       line bigint not null, person text not null, occasion text, gift text not null,
       amount numeric(10,2), budget numeric(10,2)
     ) on commit drop`,
  );
}

export async function gatherLines(client: Queryable, lines: readonly GiftLine[]): Promise<void> {
  await client.query(
    `insert into imported_lines (line, person, occasion, gift, amount, budget)
     select * from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::numeric[], $6::numeric[])`,
    [
      lines.map((line) => line.line),
      lines.map((line) => line.person),
      lines.map((line) => line.occasion),
      lines.map((line) => line.gift),
      lines.map((line) => line.amount),
      lines.map((line) => line.budget),
    ],
  );
}

export interface ConflictingBudget {
  readonly person: string;
  readonly occasion: string;
  readonly line: number;
  /** The line that stated another budget for the pair first. */
  readonly firstLine: number;
}

/** The first lines whose budget is another one than their pair was given before; and how many. */
export async function conflictingBudgets(
  client: Queryable,
  limit: number,
): Promise<{ conflicts: ConflictingBudget[]; count: number }> {
  const { rows } = await client.query(
    `select person, occasion, line::float8 as line, first_line::float8 as "firstLine",
            (count(*) over ())::int as count
       from (select person, occasion, line, budget,
                    first_value(budget) over of_pair as first_budget,
                    first_value(line) over of_pair as first_line
               from imported_lines where budget is not null
             window of_pair as (partition by person, occasion order by line)) as stated
      where budget <> first_budget
      order by stated.line limit $1::int`,
    [limit],
  );
  return {
    conflicts: rows as unknown as ConflictingBudget[],
    count: (rows[0]?.count as number | undefined) ?? 0,
  };
}

/**
 * Stores the gathered lines. Persons, occasions and gifts are known by their names, and made where
 * there is none of that name.
 */
export async function storeLines(client: Queryable): Promise<Imported> {
  await client.query('analyze imported_lines');
  const persons = await createNamed(client, 'persons', 'person');
  const occasions = await createNamed(client, 'occasions', 'occasion');
  const gifts = await createNamed(client, 'gifts', 'gift');
  await client.query(
    `create temporary table imported_pairs on commit drop as
     select p.id as person_id, o.id as occasion_id, max(l.budget) as budget
       from imported_lines l
       join imported_persons p on p.name = l.person
       join imported_occasions o on o.name = l.occasion
      group by p.id, o.id`,
  );
  const { rows: budgets } = await client.query(
    `with stored as (
       insert into person_occasions as b (person_id, occasion_id, budget_amount)
       select person_id, occasion_id, budget from imported_pairs order by person_id, occasion_id
           on conflict (person_id, occasion_id) do update
          set budget_amount = coalesce(excluded.budget_amount, b.budget_amount)
        where excluded.budget_amount is not null
       returning (xmax = 0) as created
     )
     select count(*) filter (where created)::int as created from stored`,
  );
  const { rows: assignments } = await client.query(
    `with stored as (
       insert into gift_persons (gift_id, person_id, occasion_id, amount)
       select g.id, p.id, o.id, l.amount
         from imported_lines l
         join imported_persons p on p.name = l.person
         join imported_gifts g on g.name = l.gift
         left join imported_occasions o on o.name = l.occasion
        order by l.line
       returning 1
     )
     select count(*)::int as created from stored`,
  );
  return {
    assignments: assignments[0]!.created as number,
    persons,
    occasions,
    gifts,
    budgets: budgets[0]!.created as number,
  };
}

/** The pairs that the stored lines touch. */
export async function importedPairs(client: Queryable): Promise<Pair[]> {
  const { rows } = await client.query(
    `select person_id::text as "personId", occasion_id::text as "occasionId" from imported_pairs`,
  );
  return rows as unknown as Pair[];
}

/** Makes those that no name stands for yet; of several with one name, the oldest is meant. */
async function createNamed(
  client: Queryable,
  table: 'persons' | 'occasions' | 'gifts',
  column: 'person' | 'occasion' | 'gift',
): Promise<number> {
  const { rows } = await client.query(
    `with created as (
       insert into ${table} (name)
       select ${column} from imported_lines l
        where ${column} is not null
          and not exists (select from ${table} t where t.name = l.${column})
        group by ${column} order by min(line)
       returning 1
     )
     select count(*)::int as created from created`,
  );
  await client.query(
    `create temporary table imported_${table} on commit drop as
     select name, min(id) as id from ${table}
      where name in (select ${column} from imported_lines)
      group by name`,
  );
  return rows[0]!.created as number;
}
