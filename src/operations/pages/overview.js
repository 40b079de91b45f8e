// Keeps the overview fresh: asks for its parts and replaces those that changed, except one that
// somebody has selected text in (a command to copy, say). Says so where no answer comes.
const EVERY_MS = 2000;
const LOST_AFTER_MS = 6000;

const overview = document.getElementById('overview');
const lost = document.getElementById('lost');
let answeredAt = performance.now();
let isLocked = false;

async function refresh() {
  const response = await fetch('/overview', { signal: AbortSignal.timeout(8000) });
  // To go on asking with credentials that were right once would lock out all who sit here.
  isLocked = response.status === 401 || response.status === 429;
  if (!response.ok) throw new Error(await response.text());
  const fresh = document.createElement('template');
  fresh.innerHTML = await response.text();
  for (const part of fresh.content.querySelectorAll('[data-part]')) replace(part);
  const verdict = overview.querySelector('.verdict strong');
  document.title = `${verdict.textContent} · gift-budgets`;
}

function replace(part) {
  const shown = overview.querySelector(`[data-part="${part.dataset.part}"]`);
  const selection = getSelection();
  const isSelected = selection.type === 'Range' && selection.containsNode(shown, true);
  if (shown.innerHTML !== part.innerHTML && !isSelected) shown.innerHTML = part.innerHTML;
}

function tellLost(reason) {
  const age = performance.now() - answeredAt;
  if (age < LOST_AFTER_MS && !isLocked) return;
  lost.textContent = isLocked
    ? `This page no longer tells anything new: ${reason}. Load it again to log in.`
    : `What you see is ${Math.round(age / 1000)} s old: gift-budgets does not answer ` +
      `(${reason}). If it ended, "gift-budgets start" starts it.`;
  lost.hidden = false;
  document.title = 'No answer · gift-budgets';
}

async function tick() {
  try {
    if (!document.hidden) {
      await refresh();
      answeredAt = performance.now();
      lost.hidden = true;
    }
  } catch (error) {
    tellLost(error.message.trim());
  }
  if (!isLocked) setTimeout(tick, EVERY_MS);
}

document.addEventListener('visibilitychange', () => {
  answeredAt = performance.now();
});
setTimeout(tick, EVERY_MS);
